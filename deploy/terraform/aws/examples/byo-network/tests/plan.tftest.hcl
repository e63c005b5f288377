mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  region              = "eu-central-1"
  vpc_id              = "vpc-0123456789abcdef0"
  private_subnet_ids  = ["subnet-0000000000000000a", "subnet-0000000000000000b"]
  authorized_networks = [{ cidr_block = "203.0.113.7/32" }]
}

run "karpenter_makes_machines_in_your_network" {
  command = plan

  assert {
    condition     = module.sie_eks.network_name == "vpc-0123456789abcdef0"
    error_message = "the network is ${module.sie_eks.network_name}"
  }
  assert {
    condition     = [for object in module.sie_eks.karpenter_objects : object.metadata.name if object.kind == "NodePool"] == ["l4-quad", "l4-spot"]
    error_message = "Karpenter has other pools"
  }
  assert {
    condition     = yamldecode(output.helm_values).workers.pools.l4.maxReplicas == 18 && !yamldecode(output.helm_values).workers.pools.l4.spot
    error_message = "the chart's l4 is not the sum of both"
  }
}
