# What the module knows of GPU machines, and what follows for each pool.

locals {
  # GPUs, cores, GiB of memory, and how many local drives of 375 GiB a machine may have; with one number, it has those.
  machines = {
    "g2-standard-4"  = { gpu_type = "nvidia-l4", gpu_count = 1, cores = 4, memory = 16, drives = [0, 1] }
    "g2-standard-8"  = { gpu_type = "nvidia-l4", gpu_count = 1, cores = 8, memory = 32, drives = [0, 1] }
    "g2-standard-12" = { gpu_type = "nvidia-l4", gpu_count = 1, cores = 12, memory = 48, drives = [0, 1] }
    "g2-standard-16" = { gpu_type = "nvidia-l4", gpu_count = 1, cores = 16, memory = 64, drives = [0, 1] }
    "g2-standard-24" = { gpu_type = "nvidia-l4", gpu_count = 2, cores = 24, memory = 96, drives = [0, 2] }
    "g2-standard-32" = { gpu_type = "nvidia-l4", gpu_count = 1, cores = 32, memory = 128, drives = [0, 1] }
    "g2-standard-48" = { gpu_type = "nvidia-l4", gpu_count = 4, cores = 48, memory = 192, drives = [0, 4] }
    "g2-standard-96" = { gpu_type = "nvidia-l4", gpu_count = 8, cores = 96, memory = 384, drives = [0, 8] }
    "a2-highgpu-1g"  = { gpu_type = "nvidia-tesla-a100", gpu_count = 1, cores = 12, memory = 85, drives = [0, 1, 2, 4, 8] }
    "a2-highgpu-2g"  = { gpu_type = "nvidia-tesla-a100", gpu_count = 2, cores = 24, memory = 170, drives = [0, 2, 4, 8] }
    "a2-highgpu-4g"  = { gpu_type = "nvidia-tesla-a100", gpu_count = 4, cores = 48, memory = 340, drives = [0, 4, 8] }
    "a2-highgpu-8g"  = { gpu_type = "nvidia-tesla-a100", gpu_count = 8, cores = 96, memory = 680, drives = [0, 8] }
    "a2-ultragpu-1g" = { gpu_type = "nvidia-a100-80gb", gpu_count = 1, cores = 12, memory = 170, drives = [1] }
    "a2-ultragpu-2g" = { gpu_type = "nvidia-a100-80gb", gpu_count = 2, cores = 24, memory = 340, drives = [2] }
    "a2-ultragpu-4g" = { gpu_type = "nvidia-a100-80gb", gpu_count = 4, cores = 48, memory = 680, drives = [4] }
    "a2-ultragpu-8g" = { gpu_type = "nvidia-a100-80gb", gpu_count = 8, cores = 96, memory = 1360, drives = [8] }
    "a3-highgpu-8g"  = { gpu_type = "nvidia-h100-80gb", gpu_count = 8, cores = 208, memory = 1872, drives = [16] }
  }
  drive_gib = 375

  pool_drives = {
    for pool in var.gpu_node_pools : pool.name => coalesce(
      pool.local_ssd_count,
      try(length(local.machines[pool.machine_type].drives) == 1 ? local.machines[pool.machine_type].drives[0] : 0, 0),
    )
  }

  # Pools with everything decided that follows from the machine.
  pools = {
    for pool in var.gpu_node_pools : pool.name => merge(pool, {
      gpu_type     = try(local.machines[pool.machine_type].gpu_type, pool.gpu_type)
      gpu_count    = try(local.machines[pool.machine_type].gpu_count, pool.gpu_count)
      drives       = local.pool_drives[pool.name]
      disk_size_gb = coalesce(pool.disk_size_gb, local.pool_drives[pool.name] > 0 ? 100 : 400)
      disk_gib = (
        local.pool_drives[pool.name] > 0
        ? local.pool_drives[pool.name] * local.drive_gib
        : coalesce(pool.disk_size_gb, 400)
      )
      labels = merge({ "node-type" = "gpu" }, pool.labels)
      zones  = length(pool.zones) > 0 ? sort(pool.zones) : local.offering[pool.machine_type]
    })
  }

  # The words of the Kubernetes API for the effects of GKE's.
  taint_effects = { NO_SCHEDULE = "NoSchedule", NO_EXECUTE = "NoExecute", PREFER_NO_SCHEDULE = "PreferNoSchedule" }
}

# Not every zone of a region has every machine, and GKE refuses a pool that spans one without. So zones are looked up
# for pools that name none: in each slot one zone, so that the keys are known before the zones are.
locals {
  unplaced = toset([for pool in var.gpu_node_pools : pool.machine_type if length(pool.zones) == 0])
  slots = {
    for pair in setproduct(local.unplaced, range(6)) : "${pair[0]}/${pair[1]}" => { machine = pair[0], slot = pair[1] }
  }
  offering = {
    for machine in local.unplaced : machine => sort(distinct([
      for key, slot in local.slots : data.google_compute_machine_types.offered[key].zone
      if slot.machine == machine && length(data.google_compute_machine_types.offered[key].machine_types) > 0
    ]))
  }
}

data "google_compute_zones" "up" {
  count = length(local.unplaced) > 0 ? 1 : 0

  project = var.project_id
  region  = var.region
  status  = "UP"

  depends_on = [google_project_service.required]
}

data "google_compute_machine_types" "offered" {
  for_each = local.slots

  project = var.project_id
  zone    = element(data.google_compute_zones.up[0].names, each.value.slot)
  filter  = "name = \"${each.value.machine}\""
}
