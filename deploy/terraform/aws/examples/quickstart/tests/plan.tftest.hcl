mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  region              = "eu-central-1"
  authorized_networks = [{ cidr_block = "203.0.113.7/32" }]
}

run "an_l4_spot_pool_from_zero" {
  command = plan

  assert {
    condition = [for pool in module.sie_eks.gpu_node_pools : [pool.machine_type, pool.gpu_type, tostring(pool.spot), tostring(pool.min_node_count), tostring(pool.max_node_count)]] == [
      ["g6.xlarge", "nvidia-l4", "true", "0", "5"],
    ]
    error_message = "the pools are ${jsonencode(module.sie_eks.gpu_node_pools)}"
  }
}

run "the_outputs_of_the_guide" {
  command = plan

  assert {
    condition     = output.kubectl_command == "aws eks update-kubeconfig --region eu-central-1 --name sie-quickstart"
    error_message = "kubectl_command is ${output.kubectl_command}"
  }
  assert {
    condition     = output.artifact_registry_url == "123456789012.dkr.ecr.eu-central-1.amazonaws.com/sie-quickstart" && output.model_cache_url == "s3://sie-quickstart-123456789012-eu-central-1-models/models"
    error_message = "images or models would be elsewhere"
  }
}

run "helm_values_yaml_is_what_the_cluster_has" {
  command = plan

  assert {
    condition = alltrue([
      for key in ["spot", "minReplicas", "maxReplicas", "nodeSelector", "resources"] :
      yamldecode(file("${path.root}/helm-values.yaml")).workers.pools.l4[key] == yamldecode(output.helm_values).workers.pools.l4[key]
    ])
    error_message = "helm-values.yaml and the output helm_values differ about the pool l4"
  }
  assert {
    condition     = yamldecode(file("${path.root}/helm-values.yaml")).workers.common.spotNodeSelector == yamldecode(output.helm_values).workers.common.spotNodeSelector
    error_message = "helm-values.yaml would not find spot machines"
  }
}

run "it_asks_from_where_you_work" {
  command = plan

  variables {
    authorized_networks = []
  }

  expect_failures = [var.authorized_networks]
}
