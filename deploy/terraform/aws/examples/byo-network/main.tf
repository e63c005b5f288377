# A cluster in a network that others made, with Karpenter instead of node groups. The subnets need a way to the
# registries, and the tag kubernetes.io/role/internal-elb = 1 where internal load balancers shall be.

module "sie_eks" {
  source = "../.."

  region       = var.region
  cluster_name = "sie-shared-vpc"

  create_network     = false
  vpc_id             = var.vpc_id
  private_subnet_ids = var.private_subnet_ids

  authorized_networks = var.authorized_networks

  cpu_node_pool = { min_node_count = 2, max_node_count = 2 }
  gpu_node_pools = [
    { name = "l4-spot", machine_type = "g6.xlarge", max_node_count = 10, spot = true },
    { name = "l4-quad", machine_type = "g6.12xlarge", max_node_count = 2 },
  ]
  enable_node_auto_provisioning = true
  install_node_autoscaling      = true
}
