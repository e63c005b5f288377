# A node group for each pool of GPU machines. It starts with `min_node_count` machines, which may be none.

resource "aws_eks_node_group" "gpu" {
  for_each = local.node_group_pools

  cluster_name           = aws_eks_cluster.this.name
  node_group_name_prefix = "${each.key}-"
  node_role_arn          = aws_iam_role.node.arn
  subnet_ids             = local.pool_subnet_ids[each.key]
  ami_type               = "AL2023_x86_64_NVIDIA"
  instance_types         = [each.value.machine_type]
  capacity_type          = each.value.capacity_type
  labels                 = each.value.labels
  tags                   = var.tags

  scaling_config {
    min_size     = each.value.min_node_count
    desired_size = each.value.min_node_count
    max_size     = each.value.max_node_count
  }

  dynamic "taint" {
    for_each = each.value.taints
    content {
      key    = taint.value.key
      value  = taint.value.value
      effect = taint.value.effect
    }
  }

  update_config {
    max_unavailable = 1
  }

  node_repair_config {
    enabled = true
  }

  launch_template {
    id      = aws_launch_template.this[each.key].id
    version = aws_launch_template.this[each.key].latest_version
  }

  lifecycle {
    create_before_destroy = true
    ignore_changes        = [scaling_config[0].desired_size, subnet_ids] # the autoscaler's; see placement
    replace_triggered_by  = [terraform_data.placement[each.key]]

    precondition {
      condition     = length(local.pool_misplaced[each.key]) == 0
      error_message = "Pool ${each.key}: ${each.value.machine_type} is not offered in ${join(", ", local.pool_misplaced[each.key])}, but in ${join(", ", local.offering[each.value.machine_type])}. Correct zones, or leave them empty."
    }
    precondition {
      condition     = length(local.pool_subnet_ids[each.key]) > 0
      error_message = "Pool ${each.key}: no private subnet is in a zone for ${each.value.machine_type}. The pool's zones are ${jsonencode(local.pool_zones[each.key])}, the network's ${jsonencode(distinct(local.private_subnets[*].zone))}. Set availability_zones (or private_subnet_ids), use another machine_type, or another region."
    }
  }

  depends_on = [
    aws_eks_node_group.cpu, # which brings the routes and the add-ons before it
    aws_iam_role_policy_attachment.node,
  ]
}

# What the cluster autoscaler reads of a pool that has no machine to look at.
locals {
  node_template = "k8s.io/cluster-autoscaler/node-template"

  autoscaler_tags = merge([
    for name, pool in local.node_group_pools : merge(
      {
        for key, value in merge(pool.labels, { "eks.amazonaws.com/capacityType" = pool.capacity_type }) :
        "${name}/label/${key}" => { pool = name, key = "${local.node_template}/label/${key}", value = value }
      },
      {
        for taint in pool.taints :
        "${name}/taint/${taint.key}" => { pool = name, key = "${local.node_template}/taint/${taint.key}", value = "${taint.value}:${local.taint_effects[taint.effect]}" }
      },
      {
        "${name}/gpus" = { pool = name, key = "${local.node_template}/resources/nvidia.com/gpu", value = tostring(pool.gpu_count) }
        "${name}/disk" = { pool = name, key = "${local.node_template}/resources/ephemeral-storage", value = "${floor(pool.disk_gib * 9 / 10)}Gi" }
      },
    )
  ]...)
}

resource "aws_autoscaling_group_tag" "scale_from_zero" {
  for_each = local.autoscaler_tags

  autoscaling_group_name = aws_eks_node_group.gpu[each.value.pool].resources[0].autoscaling_groups[0].name

  tag {
    key                 = each.value.key
    value               = each.value.value
    propagate_at_launch = false
  }
}
