# Launch templates of all machines, and the pool without GPUs.

locals {
  # cloud-init's form for the settings of Amazon Linux 2023; EKS appends those of the cluster.
  local_ssd_settings = <<-MIME
    MIME-Version: 1.0
    Content-Type: multipart/mixed; boundary="SETTINGS"

    --SETTINGS
    Content-Type: application/node.eks.aws

    apiVersion: node.eks.aws/v1alpha1
    kind: NodeConfig
    spec:
      instance:
        localStorage:
          strategy: RAID0

    --SETTINGS--
  MIME

  launch_templates = merge(
    {
      cpu-pool = {
        disk_size_gb            = var.cpu_node_pool.disk_size_gb
        disk_type               = var.cpu_node_pool.disk_type
        local_ssd               = false
        capacity_reservation_id = null
      }
    },
    { for name, pool in local.node_group_pools : name => pool },
  )

  # Pools that are node groups; with Karpenter none is.
  node_group_pools = { for name, pool in local.pools : name => pool if !var.enable_node_auto_provisioning }
}

resource "aws_launch_template" "this" {
  for_each = local.launch_templates

  name_prefix            = "${var.cluster_name}-${each.key}-"
  description            = "Machines of ${each.key} in ${var.cluster_name}"
  update_default_version = true
  user_data              = each.value.local_ssd ? base64encode(local.local_ssd_settings) : null
  tags                   = var.tags

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_size           = each.value.disk_size_gb
      volume_type           = each.value.disk_type
      encrypted             = true
      kms_key_id            = var.disk_kms_key_arn
      delete_on_termination = true
    }
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # the machine itself, and no pod
    instance_metadata_tags      = "disabled"
  }

  dynamic "capacity_reservation_specification" {
    for_each = each.value.capacity_reservation_id == null ? [] : [each.value.capacity_reservation_id]
    content {
      capacity_reservation_target {
        capacity_reservation_id = capacity_reservation_specification.value
      }
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])
    content {
      resource_type = tag_specifications.value
      tags          = merge(var.tags, { Name = "${var.cluster_name}-${each.key}" })
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_eks_node_group" "cpu" {
  cluster_name           = aws_eks_cluster.this.name
  node_group_name_prefix = "cpu-pool-"
  node_role_arn          = aws_iam_role.node.arn
  subnet_ids             = local.private_subnet_ids
  ami_type               = "AL2023_x86_64_STANDARD"
  instance_types         = [var.cpu_node_pool.machine_type]
  capacity_type          = var.cpu_node_pool.spot ? "SPOT" : "ON_DEMAND"
  labels                 = { "node-type" = "cpu" }
  tags                   = var.tags

  scaling_config {
    min_size     = var.cpu_node_pool.min_node_count
    desired_size = var.cpu_node_pool.min_node_count
    max_size     = var.cpu_node_pool.max_node_count
  }

  update_config {
    max_unavailable = 1
  }

  node_repair_config {
    enabled = true
  }

  launch_template {
    id      = aws_launch_template.this["cpu-pool"].id
    version = aws_launch_template.this["cpu-pool"].latest_version
  }

  lifecycle {
    create_before_destroy = true
    ignore_changes        = [scaling_config[0].desired_size, subnet_ids] # the autoscaler's; see placement
    replace_triggered_by  = [terraform_data.placement["cpu-pool"]]
  }

  depends_on = [
    aws_eks_addon.before_nodes,
    aws_iam_role_policy_attachment.node,
    aws_route.private_internet,
    aws_route_table_association.private,
    aws_vpc_endpoint.interface,
    aws_vpc_endpoint.s3,
  ]
}
