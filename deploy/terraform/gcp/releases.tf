# Releases in the cluster. Each is off until asked for, and needs a helm provider in the calling configuration that
# reaches the API.

locals {
  chart_versions = merge({ ingress-nginx = "4.12.1" }, var.chart_versions)
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
      service      = { annotations = var.ingress_nginx_service_annotations }
    }
  })]

  depends_on = [google_container_node_pool.cpu, google_compute_firewall.webhooks]
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
    google_container_node_pool.cpu,
    google_container_node_pool.gpu,
    google_compute_firewall.webhooks,
    google_service_account_iam_member.workload,
    google_storage_bucket_iam_member.workload,
    google_artifact_registry_repository_iam_member.nodes,
    helm_release.ingress_nginx,
  ]
}
