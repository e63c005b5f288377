# Add-ons that machines need come before them; those whose pods need a machine come after the CPU pool.

locals {
  addons = {
    vpc-cni = {
      before        = true
      role          = "vpc-cni"
      configuration = { enableNetworkPolicy = "true" } # the chart's NetworkPolicies are enforced by it
    }
    eks-pod-identity-agent = { before = true, role = null, configuration = {} }
    kube-proxy             = { before = true, role = null, configuration = {} }
    coredns                = { before = false, role = null, configuration = {} }
    aws-ebs-csi-driver = {
      before        = false
      role          = "ebs-csi"
      configuration = { defaultStorageClass = { enabled = true } } # volume claims that name no class
    }
  }
}

resource "aws_eks_addon" "before_nodes" {
  for_each = { for name, addon in local.addons : name => addon if addon.before }

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = lookup(var.addon_versions, each.key, null)
  configuration_values        = length(each.value.configuration) > 0 ? jsonencode(each.value.configuration) : null
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"
  tags                        = var.tags

  dynamic "pod_identity_association" {
    for_each = each.value.role == null ? [] : [each.value.role]
    content {
      service_account = local.pod_accounts[pod_identity_association.value].service_account
      role_arn        = aws_iam_role.pod[pod_identity_association.value].arn
    }
  }

  depends_on = [aws_iam_role_policy_attachment.vpc_cni]
}

resource "aws_eks_addon" "after_nodes" {
  for_each = { for name, addon in local.addons : name => addon if !addon.before }

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = lookup(var.addon_versions, each.key, null)
  configuration_values        = length(each.value.configuration) > 0 ? jsonencode(each.value.configuration) : null
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"
  tags                        = var.tags

  dynamic "pod_identity_association" {
    for_each = each.value.role == null ? [] : [each.value.role]
    content {
      service_account = local.pod_accounts[pod_identity_association.value].service_account
      role_arn        = aws_iam_role.pod[pod_identity_association.value].arn
    }
  }

  depends_on = [aws_eks_node_group.cpu, aws_iam_role_policy_attachment.ebs_csi]
}
