# Nothing of it is on the internet: the API and the site have private addresses, keys are yours, and Terraform installs
# the ingress controller and the chart. It must run where it reaches the API, in `corporate_network` or in the VPC.

module "sie_gke" {
  source = "../.."

  project_id   = var.project_id
  region       = var.region
  cluster_name = "sie-private"

  private_networks  = [var.corporate_network]
  kms_key_name      = var.kms_key_name
  disk_kms_key_name = var.kms_key_name

  install_ingress_nginx = true
  ingress_nginx_service_annotations = {
    "cloud.google.com/load-balancer-type" = "Internal"
  }

  install_sie                 = true
  sie_ingress_enabled         = true
  sie_ingress_host            = var.host
  sie_ingress_tls_enabled     = true
  sie_ingress_tls_secret_name = "sie-tls"
  sie_router_auth_mode        = "static"
  sie_router_auth_secret_name = "sie-router-auth"
}

provider "helm" {
  kubernetes = {
    host                   = "https://${module.sie_gke.cluster_endpoint}"
    cluster_ca_certificate = base64decode(module.sie_gke.cluster_ca_certificate)
    exec = {
      api_version = "client.authentication.k8s.io/v1beta1"
      command     = "gke-gcloud-auth-plugin"
    }
  }
}
