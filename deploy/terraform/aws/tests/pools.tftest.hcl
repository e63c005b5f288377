mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  region = "eu-central-1"
}

run "the_default_pool_is_l4_spot_that_costs_nothing_at_rest" {
  command = plan

  assert {
    condition     = aws_eks_node_group.gpu["l4-pool"].instance_types[0] == "g6.xlarge" && aws_eks_node_group.gpu["l4-pool"].capacity_type == "SPOT" && aws_eks_node_group.gpu["l4-pool"].ami_type == "AL2023_x86_64_NVIDIA"
    error_message = "the pool is not of L4 spot machines with NVIDIA's driver"
  }
  assert {
    condition     = aws_eks_node_group.gpu["l4-pool"].scaling_config[0].min_size == 0 && aws_eks_node_group.gpu["l4-pool"].scaling_config[0].desired_size == 0 && aws_eks_node_group.gpu["l4-pool"].scaling_config[0].max_size == 10
    error_message = "the pool starts with a machine that somebody pays for"
  }
  assert {
    condition     = [for taint in aws_eks_node_group.gpu["l4-pool"].taint : "${taint.key}=${taint.value}:${taint.effect}"] == ["nvidia.com/gpu=present:NO_SCHEDULE"]
    error_message = "pods without a GPU would run on GPU machines"
  }
  assert {
    condition     = aws_eks_node_group.gpu["l4-pool"].labels == tomap({ "node-type" = "gpu", "k8s.amazonaws.com/accelerator" = "nvidia-l4" })
    error_message = "the labels are ${jsonencode(aws_eks_node_group.gpu["l4-pool"].labels)}"
  }
}

# The production example of the guide, with Amazon's machines: one L4 warm, A100 from zero.
run "production_pools" {
  command = plan

  variables {
    gpu_node_pools = [
      {
        name           = "l4-pool"
        machine_type   = "g6.2xlarge"
        gpu_type       = "nvidia-l4"
        gpu_count      = 1
        min_node_count = 1
        max_node_count = 20
        spot           = false
      },
      {
        name           = "a100-pool"
        machine_type   = "p4d.24xlarge"
        gpu_type       = "nvidia-tesla-a100"
        gpu_count      = 8
        min_node_count = 0
        max_node_count = 10
        spot           = true
      },
      {
        name           = "a100-80gb"
        machine_type   = "p4de.24xlarge"
        max_node_count = 2
        labels         = { "sie.superlinked.com/gpu-type" = "a100-80gb" }
        taints         = [{ key = "team", value = "ml", effect = "NO_EXECUTE" }]
      },
    ]
  }

  assert {
    condition     = { for name, group in aws_eks_node_group.gpu : name => group.instance_types[0] } == { "l4-pool" = "g6.2xlarge", "a100-pool" = "p4d.24xlarge", "a100-80gb" = "p4de.24xlarge" }
    error_message = "the pools are not of the machines asked for"
  }
  assert {
    condition     = { for name, group in aws_eks_node_group.gpu : name => group.capacity_type } == { "l4-pool" = "ON_DEMAND", "a100-pool" = "SPOT", "a100-80gb" = "ON_DEMAND" }
    error_message = "spot is not where it was asked for"
  }
  assert {
    condition     = { for name, group in aws_eks_node_group.gpu : name => group.scaling_config[0].desired_size } == { "l4-pool" = 1, "a100-pool" = 0, "a100-80gb" = 0 }
    error_message = "the pools do not start with their minimum"
  }
  assert {
    condition     = aws_eks_node_group.gpu["a100-80gb"].labels["sie.superlinked.com/gpu-type"] == "a100-80gb" && aws_eks_node_group.gpu["a100-80gb"].labels["k8s.amazonaws.com/accelerator"] == "nvidia-a100-80gb"
    error_message = "a label of yours is lost, or one of ours"
  }
  assert {
    condition     = [for taint in aws_eks_node_group.gpu["a100-80gb"].taint : "${taint.key}=${taint.value}:${taint.effect}"] == ["team=ml:NO_EXECUTE"]
    error_message = "the taints are not those asked for"
  }
  assert {
    condition     = output.gpu_node_pool_names == ["a100-80gb", "a100-pool", "l4-pool"] && output.gpu_node_pools["a100-pool"].gpu_count == 8 && output.gpu_node_pools["l4-pool"].disk_gib == 419
    error_message = "the outputs do not tell what the pools have"
  }
}

run "an_empty_pool_tells_the_autoscaler_what_it_would_have" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "l4-pool", machine_type = "g6.12xlarge", max_node_count = 4, spot = true, labels = { tier = "batch" } }]
  }

  assert {
    condition = { for tag in aws_autoscaling_group_tag.scale_from_zero : trimprefix(tag.tag[0].key, "k8s.io/cluster-autoscaler/node-template/") => tag.tag[0].value } == {
      "label/tier"                           = "batch"
      "label/node-type"                      = "gpu"
      "label/k8s.amazonaws.com/accelerator"  = "nvidia-l4"
      "label/eks.amazonaws.com/capacityType" = "SPOT"
      "taint/nvidia.com/gpu"                 = "present:NoSchedule"
      "resources/nvidia.com/gpu"             = "4"
      "resources/ephemeral-storage"          = "3150Gi"
    }
    error_message = "the tags are ${jsonencode({ for tag in aws_autoscaling_group_tag.scale_from_zero : tag.tag[0].key => tag.tag[0].value })}"
  }
}

run "machines_are_locked_down" {
  command = plan

  assert {
    condition     = alltrue([for template in aws_launch_template.this : template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "pods could take the machine's role from its metadata service"
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.this : template.block_device_mappings[0].ebs[0].encrypted == "true" && template.block_device_mappings[0].ebs[0].delete_on_termination == "true"])
    error_message = "a disk is not encrypted, or outlives its machine and bills"
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.this : toset(template.tag_specifications[*].resource_type) == toset(["instance", "volume", "network-interface"])])
    error_message = "machines, disks or interfaces would have no tags"
  }
}

run "models_are_on_the_machines_own_drives" {
  command = plan

  assert {
    condition     = strcontains(base64decode(aws_launch_template.this["l4-pool"].user_data), "strategy: RAID0") && aws_launch_template.this["l4-pool"].block_device_mappings[0].ebs[0].volume_size == 50
    error_message = "pods would be on a network disk"
  }
  assert {
    condition     = aws_launch_template.this["cpu-pool"].user_data == null
    error_message = "the CPU pool has settings for drives that it has not"
  }
}

run "or_on_a_network_disk_with_room_for_the_charts_cache" {
  command = plan

  variables {
    gpu_node_pools = [
      { name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4, local_ssd = false },
      { name = "a10g-pool", machine_type = "g5.xlarge", gpu_type = "nvidia-a10g", gpu_count = 1, max_node_count = 4, disk_size_gb = 500 },
    ]
  }

  assert {
    condition     = aws_launch_template.this["l4-pool"].block_device_mappings[0].ebs[0].volume_size == 400 && aws_launch_template.this["l4-pool"].user_data == null
    error_message = "the disk has no room for 300Gi of models and the images"
  }
  assert {
    condition     = aws_launch_template.this["a10g-pool"].block_device_mappings[0].ebs[0].volume_size == 500 && output.gpu_node_pools["a10g-pool"].disk_gib == 500
    error_message = "the disk is not as large as asked for"
  }
}

run "reserved_capacity_is_used" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "a100-pool", machine_type = "p4d.24xlarge", max_node_count = 1, capacity_reservation_id = "cr-0123456789abcdef0" }]
  }

  assert {
    condition     = aws_launch_template.this["a100-pool"].capacity_reservation_specification[0].capacity_reservation_target[0].capacity_reservation_id == "cr-0123456789abcdef0"
    error_message = "machines would not come from the reservation"
  }
}

run "a_pool_can_be_kept_to_zones" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4, zones = ["eu-central-1b"] }]
  }

  assert {
    condition     = local.pool_zones["l4-pool"] == tolist(["eu-central-1b"]) && length(local.pool_subnet_ids["l4-pool"]) == 1
    error_message = "the pool is in ${join(", ", local.pool_zones["l4-pool"])}"
  }
}

run "the_cpu_pool_counts_for_the_whole_cluster" {
  command = plan

  variables {
    cpu_node_pool = { machine_type = "m7i.2xlarge", min_node_count = 2, max_node_count = 6 }
  }

  assert {
    condition     = aws_eks_node_group.cpu.instance_types[0] == "m7i.2xlarge" && aws_eks_node_group.cpu.scaling_config[0].min_size == 2 && aws_eks_node_group.cpu.scaling_config[0].max_size == 6
    error_message = "the CPU pool is not as asked for"
  }
  assert {
    condition     = aws_eks_node_group.cpu.capacity_type == "ON_DEMAND" && length(aws_eks_node_group.cpu.taint) == 0 && aws_eks_node_group.cpu.labels["node-type"] == "cpu"
    error_message = "the CPU pool may vanish, or refuses pods"
  }
}

run "there_may_be_no_gpus_at_all" {
  command = plan

  variables {
    gpu_node_pools = []
  }

  assert {
    condition     = length(aws_eks_node_group.gpu) == 0 && length(aws_autoscaling_group_tag.scale_from_zero) == 0 && length(aws_subnet.private) == 3
    error_message = "there are GPU pools that nobody asked for"
  }
}

run "machines_are_repaired_and_replaced_one_by_one" {
  command = plan

  assert {
    condition     = alltrue([for group in concat([aws_eks_node_group.cpu], values(aws_eks_node_group.gpu)) : group.node_repair_config[0].enabled && group.update_config[0].max_unavailable == 1])
    error_message = "a machine that failed stays, or an upgrade takes several at a time"
  }
}
