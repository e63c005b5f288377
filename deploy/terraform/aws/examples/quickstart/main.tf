# A cluster with one pool of L4 spot machines, from zero. See docs/deployment/aws.md.

module "sie_eks" {
  source = "../.."

  region       = var.region
  cluster_name = var.cluster_name

  authorized_networks = var.authorized_networks
  deletion_protection = false
  enable_flow_logs    = false

  gpu_node_pools = [
    {
      name           = "l4-spot"
      machine_type   = "g6.xlarge"
      gpu_type       = "nvidia-l4"
      gpu_count      = 1
      min_node_count = 0
      max_node_count = 5
      spot           = true
    },
  ]

  enable_workload_identity = true
  sie_namespace            = "sie"
  sie_service_account_name = "sie-server"

  install_node_autoscaling = true
}
