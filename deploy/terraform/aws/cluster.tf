resource "aws_iam_role" "cluster" {
  name = "${var.cluster_name}-cluster"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
    }]
  })
  tags = var.tags
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonEKSClusterPolicy"
}

resource "aws_iam_role_policy" "cluster_secrets" {
  name = "secrets-encryption"
  role = aws_iam_role.cluster.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["kms:Encrypt", "kms:Decrypt", "kms:ListGrants", "kms:DescribeKey"]
      Resource = local.secrets_key
    }]
  })
}

# Made before the cluster: EKS would make one that keeps logs for ever and outlives the cluster.
resource "aws_cloudwatch_log_group" "cluster" {
  #checkov:skip=CKV_AWS_338: how long logs are kept is yours to say (log_retention_days); a year of audit logs costs more than it is worth to most
  count = var.enable_cloud_logging ? 1 : 0

  name              = "/aws/eks/${var.cluster_name}/cluster"
  retention_in_days = var.log_retention_days
  kms_key_id        = local.log_key_arn
  tags              = var.tags
}

resource "aws_eks_cluster" "this" {
  name                          = var.cluster_name
  version                       = var.kubernetes_version
  role_arn                      = aws_iam_role.cluster.arn
  enabled_cluster_log_types     = var.enable_cloud_logging ? ["api", "audit", "authenticator", "controllerManager", "scheduler"] : []
  bootstrap_self_managed_addons = false # all come as add-ons, which can be upgraded
  tags                          = var.tags

  vpc_config {
    subnet_ids              = local.private_subnet_ids
    endpoint_private_access = true
    endpoint_public_access  = length(var.authorized_networks) > 0
    public_access_cidrs     = length(var.authorized_networks) > 0 ? var.authorized_networks[*].cidr_block : null
  }

  kubernetes_network_config {
    ip_family         = "ipv4"
    service_ipv4_cidr = var.services_cidr
  }

  encryption_config {
    resources = ["secrets"]
    provider {
      key_arn = local.secrets_key
    }
  }

  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = var.cluster_creator_admin
  }

  upgrade_policy {
    support_type = var.upgrade_support_type
  }

  depends_on = [
    aws_iam_role_policy_attachment.cluster,
    aws_iam_role_policy.cluster_secrets,
    aws_cloudwatch_log_group.cluster,
  ]
}

resource "aws_vpc_security_group_ingress_rule" "private_api" {
  for_each = toset(var.private_networks)

  security_group_id = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
  description       = "Kubernetes API from a network beside the VPC"
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_eks_access_entry" "this" {
  for_each = var.access_entries

  cluster_name  = aws_eks_cluster.this.name
  principal_arn = each.value.principal_arn
  tags          = var.tags
}

locals {
  access_policies = { admin = "AmazonEKSClusterAdminPolicy", edit = "AmazonEKSEditPolicy", view = "AmazonEKSViewPolicy" }
}

resource "aws_eks_access_policy_association" "this" {
  for_each = var.access_entries

  cluster_name  = aws_eks_cluster.this.name
  principal_arn = aws_eks_access_entry.this[each.key].principal_arn
  policy_arn = format(
    "arn:%s:eks::aws:cluster-access-policy/%s",
    local.partition,
    # The cluster's administrator may do anything; that of a namespace is another policy.
    each.value.policy == "admin" && length(each.value.namespaces) > 0 ? "AmazonEKSAdminPolicy" : local.access_policies[each.value.policy],
  )

  access_scope {
    type       = length(each.value.namespaces) > 0 ? "namespace" : "cluster"
    namespaces = length(each.value.namespaces) > 0 ? each.value.namespaces : null
  }
}
