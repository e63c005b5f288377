locals {
  karpenter_objects = flatten([
    for name, pool in local.pools : [
      {
        apiVersion = "karpenter.k8s.aws/v1"
        kind       = "EC2NodeClass"
        metadata   = { name = name }
        spec = merge(pool.local_ssd ? { instanceStorePolicy = "RAID0" } : {}, {
          amiSelectorTerms           = [{ alias = "al2023@latest" }]
          role                       = aws_iam_role.node.name
          subnetSelectorTerms        = [for id in local.pool_subnet_ids[name] : { id = id }]
          securityGroupSelectorTerms = [{ id = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id }]
          metadataOptions            = { httpEndpoint = "enabled", httpTokens = "required", httpPutResponseHopLimit = 1 }
          tags                       = var.tags
          blockDeviceMappings = [{
            deviceName = "/dev/xvda"
            ebs = merge(
              { volumeSize = "${pool.disk_size_gb}Gi", volumeType = pool.disk_type, encrypted = true, deleteOnTermination = true },
              var.disk_kms_key_arn == null ? {} : { kmsKeyID = var.disk_kms_key_arn },
            )
          }]
        })
      },
      {
        apiVersion = "karpenter.sh/v1"
        kind       = "NodePool"
        metadata   = { name = name }
        spec = {
          limits     = { "nvidia.com/gpu" = tostring(pool.max_node_count * pool.gpu_count) }
          disruption = { consolidationPolicy = "WhenEmpty", consolidateAfter = "10m" } # never from under a worker
          template = {
            # With the label of EKS's node groups, by which the chart finds spot machines.
            metadata = { labels = merge(pool.labels, { "eks.amazonaws.com/capacityType" = pool.capacity_type }) }
            spec = {
              nodeClassRef = { group = "karpenter.k8s.aws", kind = "EC2NodeClass", name = name }
              expireAfter  = "Never"
              taints       = [for taint in pool.taints : { key = taint.key, value = taint.value, effect = local.taint_effects[taint.effect] }]
              requirements = [
                { key = "node.kubernetes.io/instance-type", operator = "In", values = [pool.machine_type] },
                { key = "karpenter.sh/capacity-type", operator = "In", values = [pool.spot ? "spot" : "on-demand"] },
                { key = "topology.kubernetes.io/zone", operator = "In", values = [for zone in distinct(local.private_subnets[*].zone) : zone if contains(local.pool_zones[name], zone)] },
              ]
            }
          }
        }
      },
    ] if local.karpenter
  ])
}

resource "helm_release" "karpenter" {
  count = local.install_karpenter ? 1 : 0

  name       = "karpenter"
  repository = "oci://public.ecr.aws/karpenter"
  chart      = "karpenter"
  version    = local.chart_versions["karpenter"]
  namespace  = "kube-system"
  values = [yamlencode({
    replicas       = min(2, var.cpu_node_pool.min_node_count) # each on a machine of its own, which Karpenter does not make
    serviceAccount = { name = local.pod_accounts["karpenter"].service_account }
    settings       = { clusterName = aws_eks_cluster.this.name, interruptionQueue = aws_sqs_queue.karpenter[0].name }
  })]

  depends_on = [
    aws_eks_addon.after_nodes,
    aws_eks_pod_identity_association.this,
    aws_iam_role_policy.karpenter,
  ]
}

# Removed before Karpenter, which ends their machines first: none is left that bills.
resource "helm_release" "karpenter_pools" {
  count = local.install_karpenter ? 1 : 0

  name      = "karpenter-pools"
  chart     = "${path.module}/charts/karpenter-pools"
  namespace = "kube-system"
  values    = [yamlencode({ objects = local.karpenter_objects })]

  lifecycle {
    precondition {
      condition     = alltrue([for name, missing in local.pool_misplaced : length(missing) == 0])
      error_message = "Machines are not offered where zones asks for them: ${jsonencode({ for name, missing in local.pool_misplaced : name => missing if length(missing) > 0 })}. Correct zones, or leave them empty."
    }
    precondition {
      condition     = alltrue([for name, subnets in local.pool_subnet_ids : length(subnets) > 0])
      error_message = "No private subnet is in a zone for the machines of ${join(", ", [for name, subnets in local.pool_subnet_ids : name if length(subnets) == 0])}. Set availability_zones (or private_subnet_ids), use another machine_type, or another region."
    }
  }

  depends_on = [helm_release.karpenter]
}
