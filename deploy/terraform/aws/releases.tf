# Releases in the cluster. Each is off until asked for, and needs a helm provider in the calling configuration that
# reaches the API.

locals {
  chart_versions = merge(
    { nvidia-device-plugin = "0.17.1", cluster-autoscaler = "9.46.6", karpenter = "1.6.3", ingress-nginx = "4.12.1" },
    var.chart_versions,
  )
  install_autoscaler = var.install_node_autoscaling && !var.enable_node_auto_provisioning
  install_karpenter  = var.install_node_autoscaling && var.enable_node_auto_provisioning
}

resource "helm_release" "nvidia_device_plugin" {
  count = var.install_node_autoscaling ? 1 : 0

  name       = "nvidia-device-plugin"
  repository = "https://nvidia.github.io/k8s-device-plugin"
  chart      = "nvidia-device-plugin"
  version    = local.chart_versions["nvidia-device-plugin"]
  namespace  = "kube-system"
  values = [yamlencode({
    # The chart's own rule asks for labels of a component that is not here.
    affinity = { nodeAffinity = { requiredDuringSchedulingIgnoredDuringExecution = { nodeSelectorTerms = [
      { matchExpressions = [{ key = "k8s.amazonaws.com/accelerator", operator = "Exists" }] },
    ] } } }
    tolerations = [{ operator = "Exists" }] # whatever the pools' taints
  })]

  depends_on = [aws_eks_addon.after_nodes]
}

resource "helm_release" "cluster_autoscaler" {
  count = local.install_autoscaler ? 1 : 0

  name       = "cluster-autoscaler"
  repository = "https://kubernetes.github.io/autoscaler"
  chart      = "cluster-autoscaler"
  version    = local.chart_versions["cluster-autoscaler"]
  namespace  = "kube-system"
  values = [yamlencode({
    fullnameOverride = "cluster-autoscaler"
    awsRegion        = var.region
    autoDiscovery    = { clusterName = aws_eks_cluster.this.name }
    rbac             = { serviceAccount = { name = local.pod_accounts["cluster-autoscaler"].service_account } }
    extraArgs = {
      expander                      = "least-waste"
      skip-nodes-with-local-storage = false # workers keep models on the machine's disk; those may go
      scale-down-unneeded-time      = "10m"
    }
  })]

  depends_on = [
    aws_eks_addon.after_nodes,
    aws_eks_pod_identity_association.this,
    aws_autoscaling_group_tag.scale_from_zero,
  ]
}

resource "helm_release" "ingress_nginx" {
  count = var.install_ingress_nginx ? 1 : 0

  name             = "ingress-nginx"
  repository       = "https://kubernetes.github.io/ingress-nginx"
  chart            = "ingress-nginx"
  version          = local.chart_versions["ingress-nginx"]
  namespace        = "ingress-nginx"
  create_namespace = true
  values = [yamlencode({
    controller = {
      replicaCount = 2
      service = {
        annotations = merge(
          { "service.beta.kubernetes.io/aws-load-balancer-type" = "nlb" },
          var.ingress_nginx_service_annotations,
        )
      }
    }
  })]

  depends_on = [aws_eks_addon.after_nodes]
}

resource "helm_release" "sie" {
  count = var.install_sie ? 1 : 0

  name             = "sie"
  chart            = var.sie_chart
  version          = var.sie_chart_version
  namespace        = var.sie_namespace
  create_namespace = true
  timeout          = 900 # KEDA and Prometheus come along
  values           = concat([yamlencode(local.chart_values)], var.sie_values)

  depends_on = [
    aws_eks_addon.after_nodes,
    aws_eks_pod_identity_association.this,
    helm_release.ingress_nginx,
    helm_release.nvidia_device_plugin,
  ]
}
