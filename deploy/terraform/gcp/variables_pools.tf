variable "cpu_node_pool" {
  description = "Machines for routers, KEDA, Prometheus and everything else without a GPU. Counts are for the whole cluster, not for each zone."
  type = object({
    machine_type   = optional(string, "e2-standard-4")
    min_node_count = optional(number, 1)
    max_node_count = optional(number, 5)
    disk_size_gb   = optional(number, 50)
    disk_type      = optional(string, "pd-balanced")
    spot           = optional(bool, false)
    zones          = optional(list(string), [])
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9]*-[a-z0-9-]+$", var.cpu_node_pool.machine_type)) && !can(regex("^(t2a|c4a|n4a|a[0-9]+|g[0-9]+)-", var.cpu_node_pool.machine_type))
    error_message = "cpu_node_pool.machine_type is \"${var.cpu_node_pool.machine_type}\". Give an x86 machine without GPUs, such as \"e2-standard-4\"; machines with GPUs belong into gpu_node_pools."
  }

  validation {
    condition     = var.cpu_node_pool.min_node_count >= 1 && var.cpu_node_pool.max_node_count >= var.cpu_node_pool.min_node_count
    error_message = "cpu_node_pool has ${var.cpu_node_pool.min_node_count} to ${var.cpu_node_pool.max_node_count} machines. It needs at least one, on which routers and autoscalers run, and a maximum that is not below the minimum."
  }

  validation {
    condition     = var.cpu_node_pool.disk_size_gb >= 30
    error_message = "cpu_node_pool.disk_size_gb is ${var.cpu_node_pool.disk_size_gb}. Give 30 or more: the system and the images of the monitoring stack need it."
  }

  validation {
    condition     = alltrue([for zone in var.cpu_node_pool.zones : can(regex("^${var.region}-[a-z]$", zone))])
    error_message = "cpu_node_pool has zones ${jsonencode(var.cpu_node_pool.zones)}. All must be zones of the region ${var.region}, such as \"${var.region}-b\"; leave zones empty to let GKE choose."
  }
}

variable "gpu_node_pools" {
  description = <<-TEXT
    Pools of GPU machines. `gpu_type` and `gpu_count` follow from `machine_type` for the families g2, a2 and a3; give both for others.
    Counts are for the whole pool, not for each zone. `zones`: empty for all zones of the region that offer the machine.
    `disk_size_gb`: 400 if null, or 100 where pods have local drives. `local_ssd_count`: drives of 375 GiB that pods have
    instead of the boot disk; null for those that the machine always has. `gpu_driver_version`: DEFAULT, LATEST or
    INSTALLATION_DISABLED. `max_surge` and `max_unavailable`: machines that an upgrade adds and takes at a time; a surge needs quota.
    `reservation`: name of a reservation to use. `flex_start`: wait for machines that run for seven days at most, for less money.
    `secondary_boot_disk_image`: a disk image with container images, so that nothing is pulled.
  TEXT
  type = list(object({
    name               = string
    machine_type       = string
    gpu_type           = optional(string)
    gpu_count          = optional(number)
    gpu_driver_version = optional(string, "DEFAULT")
    min_node_count     = optional(number, 0)
    max_node_count     = number
    disk_size_gb       = optional(number)
    disk_type          = optional(string, "pd-balanced")
    local_ssd_count    = optional(number)
    spot               = optional(bool, false)
    zones              = optional(list(string), [])
    taints = optional(list(object({
      key    = string
      value  = string
      effect = string
    })), [{ key = "nvidia.com/gpu", value = "present", effect = "NO_SCHEDULE" }])
    labels                    = optional(map(string), {})
    max_surge                 = optional(number, 0)
    max_unavailable           = optional(number, 1)
    reservation               = optional(string)
    flex_start                = optional(bool, false)
    compact_placement         = optional(bool, false)
    secondary_boot_disk_image = optional(string)
  }))
  default  = [{ name = "l4-pool", machine_type = "g2-standard-8", max_node_count = 10, spot = true }]
  nullable = false

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : can(regex("^[a-z]([a-z0-9-]*[a-z0-9])?$", pool.name)) && length(pool.name) <= 40])
    error_message = "gpu_node_pools has the names ${join(", ", var.gpu_node_pools[*].name)}. Use at most 40 lower-case letters, digits and hyphens, a letter first."
  }

  validation {
    condition     = length(distinct(var.gpu_node_pools[*].name)) == length(var.gpu_node_pools) && !contains(var.gpu_node_pools[*].name, "cpu-pool")
    error_message = "gpu_node_pools has the names ${join(", ", var.gpu_node_pools[*].name)}. Each needs a name of its own, other than \"cpu-pool\"."
  }

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : pool.min_node_count >= 0 && pool.max_node_count >= 1 && pool.max_node_count >= pool.min_node_count])
    error_message = "gpu_node_pools has machines ${join(", ", [for pool in var.gpu_node_pools : "${pool.name}: ${pool.min_node_count} to ${pool.max_node_count}"])}. The minimum is 0 or more, the maximum 1 or more and not below the minimum."
  }

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : contains(keys(local.machines), pool.machine_type) || (pool.gpu_type != null && pool.gpu_count != null)])
    error_message = "gpu_node_pools has machine types ${join(", ", [for pool in var.gpu_node_pools : pool.machine_type if !contains(keys(local.machines), pool.machine_type)])} of which the module does not know the GPUs. Set gpu_type and gpu_count, or use one of ${join(", ", keys(local.machines))}."
  }

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : try(local.machines[pool.machine_type].gpu_type == coalesce(pool.gpu_type, local.machines[pool.machine_type].gpu_type) && local.machines[pool.machine_type].gpu_count == coalesce(pool.gpu_count, local.machines[pool.machine_type].gpu_count), true)])
    error_message = "gpu_node_pools disagrees with the machines: ${join(", ", [for pool in var.gpu_node_pools : "${pool.name} says ${coalesce(pool.gpu_count, local.machines[pool.machine_type].gpu_count)} ${coalesce(pool.gpu_type, local.machines[pool.machine_type].gpu_type)}, a ${pool.machine_type} has ${local.machines[pool.machine_type].gpu_count} ${local.machines[pool.machine_type].gpu_type}" if contains(keys(local.machines), pool.machine_type)])}. Correct gpu_type and gpu_count, or leave them out."
  }

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : coalesce(pool.gpu_count, 1) >= 1 && coalesce(pool.gpu_count, 1) <= 16])
    error_message = "gpu_node_pools has gpu_count ${join(", ", [for pool in var.gpu_node_pools : coalesce(pool.gpu_count, 1)])}. A machine has 1 to 16 GPUs."
  }

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : contains(["DEFAULT", "LATEST", "INSTALLATION_DISABLED"], pool.gpu_driver_version)])
    error_message = "gpu_node_pools has gpu_driver_version ${join(", ", var.gpu_node_pools[*].gpu_driver_version)}. Use \"DEFAULT\", \"LATEST\" or \"INSTALLATION_DISABLED\" (you install a driver yourself)."
  }

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : contains(try(local.machines[pool.machine_type].drives, range(0, 25)), coalesce(pool.local_ssd_count, try(local.machines[pool.machine_type].drives[0], 0)))])
    error_message = "gpu_node_pools has local_ssd_count that the machine cannot have: ${join(", ", [for pool in var.gpu_node_pools : "${pool.name} ${pool.local_ssd_count}, a ${pool.machine_type} has ${join(" or ", try(local.machines[pool.machine_type].drives, ["0 to 24"]))}" if pool.local_ssd_count != null])}. Correct it, or leave it out."
  }

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : coalesce(pool.disk_size_gb, 400) >= 50])
    error_message = "gpu_node_pools has disk_size_gb ${join(", ", [for pool in var.gpu_node_pools : coalesce(pool.disk_size_gb, 400)])}. Give 50 or more: the system with NVIDIA's driver needs it; without local drives the images and models come on top."
  }

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : contains(["pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced"], pool.disk_type)])
    error_message = "gpu_node_pools has disk_type ${join(", ", var.gpu_node_pools[*].disk_type)}. Use \"pd-standard\", \"pd-balanced\", \"pd-ssd\" or \"hyperdisk-balanced\"."
  }

  validation {
    condition     = alltrue(flatten([for pool in var.gpu_node_pools : [for zone in pool.zones : can(regex("^${var.region}-[a-z]$", zone))]]))
    error_message = "gpu_node_pools has zones ${jsonencode(distinct(flatten(var.gpu_node_pools[*].zones)))}. All must be zones of the region ${var.region}, such as \"${var.region}-b\"; leave zones empty to use all that offer the machine."
  }

  validation {
    condition     = alltrue(flatten([for pool in var.gpu_node_pools : [for taint in pool.taints : contains(["NO_SCHEDULE", "NO_EXECUTE", "PREFER_NO_SCHEDULE"], taint.effect)]]))
    error_message = "gpu_node_pools has taint effects ${jsonencode(distinct(flatten([for pool in var.gpu_node_pools : [for taint in pool.taints : taint.effect]])))}. Use \"NO_SCHEDULE\", \"NO_EXECUTE\" or \"PREFER_NO_SCHEDULE\"."
  }

  validation {
    condition     = alltrue(flatten([for pool in var.gpu_node_pools : [for key in keys(pool.labels) : !can(regex("(^|\\.)(kubernetes\\.io|k8s\\.io|cloud\\.google\\.com)/", key))]]))
    error_message = "gpu_node_pools has labels ${jsonencode(distinct(flatten([for pool in var.gpu_node_pools : keys(pool.labels)])))}. Labels of kubernetes.io, k8s.io and cloud.google.com are set by others: choose another prefix."
  }

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : length([for kind in [pool.spot, pool.reservation != null, pool.flex_start] : kind if kind]) <= 1])
    error_message = "gpu_node_pools has pools with more than one of spot, reservation and flex_start: ${join(", ", [for pool in var.gpu_node_pools : pool.name if length([for kind in [pool.spot, pool.reservation != null, pool.flex_start] : kind if kind]) > 1])}. A machine comes in one of these ways: choose one."
  }

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : pool.max_surge >= 0 && pool.max_unavailable >= 0 && pool.max_surge + pool.max_unavailable >= 1])
    error_message = "gpu_node_pools has max_surge and max_unavailable ${join(", ", [for pool in var.gpu_node_pools : "${pool.name}: ${pool.max_surge} and ${pool.max_unavailable}"])}. An upgrade must be allowed to add a machine or to take one: one of both is 1 or more."
  }
}

variable "enable_node_auto_provisioning" {
  description = "GKE makes node pools for pods that fit none, within node_auto_provisioning_limits; from 1.32.2 on it puts the GPU driver on them by itself."
  type        = bool
  default     = false
  nullable    = false
}

variable "node_auto_provisioning_limits" {
  description = "What the whole cluster has at most, with enable_node_auto_provisioning: cores, GiB of memory, GPUs by type."
  type = object({
    cpu       = optional(number, 200)
    memory_gb = optional(number, 1000)
    gpus      = optional(map(number), { nvidia-l4 = 10 })
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.node_auto_provisioning_limits.cpu >= 4 && var.node_auto_provisioning_limits.memory_gb >= 16 && alltrue([for count in values(var.node_auto_provisioning_limits.gpus) : count >= 1])
    error_message = "node_auto_provisioning_limits is ${jsonencode(var.node_auto_provisioning_limits)}. Give at least 4 cores, 16 GiB and 1 GPU of each type; leave out types that you do not want."
  }
}
