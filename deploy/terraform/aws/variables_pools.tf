variable "cpu_node_pool" {
  description = "Machines for routers, KEDA, Prometheus and everything else without a GPU. Counts are for the whole cluster, not for each zone."
  type = object({
    machine_type   = optional(string, "m6i.xlarge")
    min_node_count = optional(number, 1)
    max_node_count = optional(number, 5)
    disk_size_gb   = optional(number, 50)
    disk_type      = optional(string, "gp3")
    spot           = optional(bool, false)
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", var.cpu_node_pool.machine_type)) && !can(regex("^[a-z]+[0-9]+[a-z]*g[a-z]*\\.", var.cpu_node_pool.machine_type))
    error_message = "cpu_node_pool.machine_type is \"${var.cpu_node_pool.machine_type}\". Give an x86 instance type, such as \"m6i.xlarge\": the images are not built for Graviton."
  }

  validation {
    condition     = var.cpu_node_pool.min_node_count >= 1 && var.cpu_node_pool.max_node_count >= var.cpu_node_pool.min_node_count
    error_message = "cpu_node_pool has ${var.cpu_node_pool.min_node_count} to ${var.cpu_node_pool.max_node_count} machines. It needs at least one, on which routers and autoscalers run, and a maximum that is not below the minimum."
  }

  validation {
    condition     = var.cpu_node_pool.disk_size_gb >= 30
    error_message = "cpu_node_pool.disk_size_gb is ${var.cpu_node_pool.disk_size_gb}. Give 30 or more: the system and the images of the monitoring stack need it."
  }
}

variable "gpu_node_pools" {
  description = <<-TEXT
    Pools of GPU machines. `gpu_type` and `gpu_count` follow from `machine_type` for the families g6, p4d, p4de and p5; give both for others.
    Counts are for the whole pool, not for each zone. `local_ssd`: pods' disk is the machine's own NVMe drives, where it has some.
    `disk_size_gb`: 50 with `local_ssd`, else 400. `zones`: empty for all zones of the network that offer the machine.
  TEXT
  type = list(object({
    name           = string
    machine_type   = string
    gpu_type       = optional(string)
    gpu_count      = optional(number)
    min_node_count = optional(number, 0)
    max_node_count = number
    disk_size_gb   = optional(number)
    disk_type      = optional(string, "gp3")
    local_ssd      = optional(bool)
    spot           = optional(bool, false)
    zones          = optional(list(string), [])
    taints = optional(list(object({
      key    = string
      value  = string
      effect = string
    })), [{ key = "nvidia.com/gpu", value = "present", effect = "NO_SCHEDULE" }])
    labels                  = optional(map(string), {})
    capacity_reservation_id = optional(string)
  }))
  default  = [{ name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 10, spot = true }]
  nullable = false

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : can(regex("^[a-z]([a-z0-9-]*[a-z0-9])?$", pool.name)) && length(pool.name) <= 20])
    error_message = "gpu_node_pools has the names ${join(", ", var.gpu_node_pools[*].name)}. Use at most 20 lower-case letters, digits and hyphens, a letter first."
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
    condition     = alltrue([for pool in var.gpu_node_pools : !coalesce(pool.local_ssd, false) || contains(keys(local.machines), pool.machine_type)])
    error_message = "gpu_node_pools asks for local_ssd on ${join(", ", [for pool in var.gpu_node_pools : pool.machine_type if coalesce(pool.local_ssd, false)])}. The module knows the drives of ${join(", ", keys(local.machines))} only; use disk_size_gb for others."
  }

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : coalesce(pool.disk_size_gb, 400) >= 50])
    error_message = "gpu_node_pools has disk_size_gb ${join(", ", [for pool in var.gpu_node_pools : coalesce(pool.disk_size_gb, 400)])}. Give 50 or more: the system with NVIDIA's driver needs it; without local_ssd the images and models come on top."
  }

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : contains(["gp3", "io1", "io2"], pool.disk_type)])
    error_message = "gpu_node_pools has disk_type ${join(", ", [for pool in var.gpu_node_pools : pool.disk_type])}. Use \"gp3\", \"io1\" or \"io2\"."
  }

  validation {
    condition     = alltrue(flatten([for pool in var.gpu_node_pools : [for zone in pool.zones : can(regex("^${var.region}[a-z]$", zone))]]))
    error_message = "gpu_node_pools has zones ${jsonencode(distinct(flatten(var.gpu_node_pools[*].zones)))}. All must be zones of the region ${var.region}, such as \"${var.region}a\"; leave zones empty to use all that offer the machine."
  }

  validation {
    condition     = alltrue(flatten([for pool in var.gpu_node_pools : [for taint in pool.taints : contains(["NO_SCHEDULE", "NO_EXECUTE", "PREFER_NO_SCHEDULE"], taint.effect)]]))
    error_message = "gpu_node_pools has taint effects ${jsonencode(distinct(flatten([for pool in var.gpu_node_pools : [for taint in pool.taints : taint.effect]])))}. Use \"NO_SCHEDULE\", \"NO_EXECUTE\" or \"PREFER_NO_SCHEDULE\"."
  }

  validation {
    condition     = alltrue(flatten([for pool in var.gpu_node_pools : [for key in keys(pool.labels) : !can(regex("(^|\\.)(kubernetes\\.io|k8s\\.io|eks\\.amazonaws\\.com|karpenter\\.sh)/", key)) && key != "k8s.amazonaws.com/accelerator"]]))
    error_message = "gpu_node_pools has labels ${jsonencode(distinct(flatten([for pool in var.gpu_node_pools : keys(pool.labels)])))}. Labels of kubernetes.io, k8s.io, eks.amazonaws.com and karpenter.sh, and k8s.amazonaws.com/accelerator, are set by others: choose another prefix."
  }

  validation {
    condition     = alltrue([for pool in var.gpu_node_pools : !(pool.spot && pool.capacity_reservation_id != null)])
    error_message = "gpu_node_pools has pools with spot and capacity_reservation_id: ${join(", ", [for pool in var.gpu_node_pools : pool.name if pool.spot && pool.capacity_reservation_id != null])}. Reserved capacity is not spot: set spot = false."
  }

  validation {
    condition     = !var.enable_node_auto_provisioning || alltrue([for pool in var.gpu_node_pools : pool.min_node_count == 0 && pool.capacity_reservation_id == null])
    error_message = "enable_node_auto_provisioning is true: Karpenter makes machines when pods ask, so min_node_count must be 0 and capacity_reservation_id unset in ${join(", ", [for pool in var.gpu_node_pools : pool.name if pool.min_node_count != 0 || pool.capacity_reservation_id != null])}. To keep a worker warm, set minReplicas of the chart's pool."
  }
}

variable "enable_node_auto_provisioning" {
  description = "Karpenter makes the machines of gpu_node_pools, instead of node groups with the cluster autoscaler. The CPU pool then stays at min_node_count machines."
  type        = bool
  default     = false
  nullable    = false
}
