mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  region              = "eu-central-1"
  authorized_networks = [{ cidr_block = "203.0.113.0/24", display_name = "office" }]
  availability_zones  = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  administrators      = { platform = "arn:aws:iam::123456789012:role/platform" }
}

run "one_l4_is_warm_and_a100_start_from_zero" {
  command = plan

  assert {
    condition = { for name, pool in module.sie_eks.gpu_node_pools : name => [pool.machine_type, pool.gpu_type, tostring(pool.gpu_count), tostring(pool.min_node_count), tostring(pool.max_node_count), tostring(pool.spot)] } == {
      l4-pool        = ["g6.2xlarge", "nvidia-l4", "1", "1", "20", "false"]
      a100-pool      = ["p4d.24xlarge", "nvidia-tesla-a100", "8", "0", "2", "true"]
      a100-80gb-pool = ["p4de.24xlarge", "nvidia-a100-80gb", "8", "0", "1", "false"]
    }
    error_message = "the pools are ${jsonencode(module.sie_eks.gpu_node_pools)}"
  }
}

run "the_chart_has_a_pool_for_each" {
  command = plan

  assert {
    condition = { for name, pool in yamldecode(output.helm_values).workers.pools : name => [pool.minReplicas, pool.maxReplicas] } == {
      l4        = [1, 20]
      a100-40gb = [0, 16]
      a100-80gb = [0, 8]
    }
    error_message = "the chart's pools are ${jsonencode(yamldecode(output.helm_values).workers.pools)}"
  }
}
