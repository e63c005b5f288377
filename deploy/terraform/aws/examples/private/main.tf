# Nothing of it is on the internet: the API and the site have private addresses, and keys are yours. Images come through
# a NAT the first time, AWS services through endpoints. Terraform installs what is in the cluster, and must run where it
# reaches the API, in `corporate_network` or in the VPC.

module "sie_eks" {
  source = "../.."

  region       = var.region
  cluster_name = "sie-private"

  private_networks = [var.corporate_network]
  kms_key_arn      = var.kms_key_arn

  interface_endpoints = ["autoscaling", "ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "logs", "sts"]

  install_node_autoscaling = true

  install_ingress_nginx = true
  ingress_nginx_service_annotations = {
    "service.beta.kubernetes.io/aws-load-balancer-internal" = "true"
  }

  install_sie                 = true
  sie_values                  = ["workers: { common: { hfFallback: false } }"] # models from the bucket alone
  sie_ingress_enabled         = true
  sie_ingress_host            = var.host
  sie_ingress_tls_enabled     = true
  sie_ingress_tls_secret_name = "sie-tls"
  sie_router_auth_mode        = "static"
  sie_router_auth_secret_name = "sie-router-auth"
}
