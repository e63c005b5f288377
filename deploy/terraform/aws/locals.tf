data "aws_partition" "current" {}

data "aws_caller_identity" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition

  # What the machines have: GPUs, cores, GiB of memory, GB of NVMe drives.
  machines = {
    "g6.xlarge"     = { gpu_type = "nvidia-l4", gpu_count = 1, cores = 4, memory = 16, nvme = 250 }
    "g6.2xlarge"    = { gpu_type = "nvidia-l4", gpu_count = 1, cores = 8, memory = 32, nvme = 450 }
    "g6.4xlarge"    = { gpu_type = "nvidia-l4", gpu_count = 1, cores = 16, memory = 64, nvme = 600 }
    "g6.8xlarge"    = { gpu_type = "nvidia-l4", gpu_count = 1, cores = 32, memory = 128, nvme = 900 }
    "g6.12xlarge"   = { gpu_type = "nvidia-l4", gpu_count = 4, cores = 48, memory = 192, nvme = 3760 }
    "g6.16xlarge"   = { gpu_type = "nvidia-l4", gpu_count = 1, cores = 64, memory = 256, nvme = 1880 }
    "g6.24xlarge"   = { gpu_type = "nvidia-l4", gpu_count = 4, cores = 96, memory = 384, nvme = 3760 }
    "g6.48xlarge"   = { gpu_type = "nvidia-l4", gpu_count = 8, cores = 192, memory = 768, nvme = 7520 }
    "p4d.24xlarge"  = { gpu_type = "nvidia-tesla-a100", gpu_count = 8, cores = 96, memory = 1152, nvme = 8000 }
    "p4de.24xlarge" = { gpu_type = "nvidia-a100-80gb", gpu_count = 8, cores = 96, memory = 1152, nvme = 8000 }
    "p5.48xlarge"   = { gpu_type = "nvidia-h100-80gb", gpu_count = 8, cores = 192, memory = 2048, nvme = 30720 }
  }

  # Pools with everything decided that follows from the machine.
  pools = {
    for pool in var.gpu_node_pools : pool.name => merge(pool, {
      gpu_type      = try(local.machines[pool.machine_type].gpu_type, pool.gpu_type)
      gpu_count     = try(local.machines[pool.machine_type].gpu_count, pool.gpu_count)
      capacity_type = pool.spot ? "SPOT" : "ON_DEMAND"
      local_ssd     = local.pool_local_ssd[pool.name]
      disk_size_gb  = coalesce(pool.disk_size_gb, local.pool_local_ssd[pool.name] ? 50 : 400)
      disk_gib      = local.pool_local_ssd[pool.name] ? floor(local.machines[pool.machine_type].nvme * 1000 * 1000 * 1000 / pow(1024, 3)) : coalesce(pool.disk_size_gb, 400)
      labels = merge(
        {
          "node-type"                     = "gpu"
          "k8s.amazonaws.com/accelerator" = try(local.machines[pool.machine_type].gpu_type, pool.gpu_type)
        },
        pool.labels,
      )
    })
  }
  pool_local_ssd = { for pool in var.gpu_node_pools : pool.name => coalesce(pool.local_ssd, contains(keys(local.machines), pool.machine_type)) }

  # The words of the Kubernetes API for the effects of EKS's.
  taint_effects = { NO_SCHEDULE = "NoSchedule", NO_EXECUTE = "NoExecute", PREFER_NO_SCHEDULE = "PreferNoSchedule" }
}
