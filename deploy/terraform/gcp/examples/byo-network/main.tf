# In a subnetwork that exists, such as one of a shared VPC. It needs two secondary ranges, private Google access and NAT.

module "sie_gke" {
  source = "../.."

  project_id   = var.project_id
  region       = var.region
  cluster_name = "sie-byo"

  create_network      = false
  network             = var.network
  subnetwork          = var.subnetwork
  pods_range_name     = var.pods_range_name
  services_range_name = var.services_range_name

  create_webhook_firewall_rule = var.create_webhook_firewall_rule
  private_networks             = var.private_networks
}
