# The values for the chart: pools, bucket, registry and access by the names that the chart knows. That the chart takes
# them, and that pods fit the machines, is tested in tests/terraform.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  region = "eu-central-1"
}

run "the_charts_pools_are_those_of_the_cluster" {
  command = plan

  variables {
    gpu_node_pools = [
      { name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 5, spot = true },
      { name = "a100-pool", machine_type = "p4d.24xlarge", min_node_count = 1, max_node_count = 2 },
    ]
  }

  assert {
    condition     = { for name, pool in yamldecode(output.helm_values).workers.pools : name => pool.nodeSelector["k8s.amazonaws.com/accelerator"] } == { l4 = "nvidia-l4", a100-40gb = "nvidia-tesla-a100" }
    error_message = "the chart's pools are ${jsonencode(keys(yamldecode(output.helm_values).workers.pools))}"
  }
  assert {
    condition     = yamldecode(output.helm_values).workers.pools.l4.minReplicas == 0 && yamldecode(output.helm_values).workers.pools.l4.maxReplicas == 5 && yamldecode(output.helm_values).workers.pools.l4.spot
    error_message = "the chart's l4 does not fit the pool"
  }
  assert {
    condition     = yamldecode(output.helm_values).workers.pools.a100-40gb.maxReplicas == 16 && yamldecode(output.helm_values).workers.pools.a100-40gb.minReplicas == 8
    error_message = "not every GPU of the eight in a machine has its worker"
  }
  assert {
    condition     = yamldecode(output.helm_values).workers.pools.l4.tolerations == [{ key = "nvidia.com/gpu", operator = "Equal", value = "present", effect = "NoSchedule" }]
    error_message = "workers would not run on the tainted machines"
  }
  assert {
    condition     = yamldecode(output.helm_values).workers.common.cacheVolumeSize == "174Gi"
    error_message = "the cache has ${yamldecode(output.helm_values).workers.common.cacheVolumeSize} of a 232 GiB drive"
  }
}

run "without_l4_machines_the_charts_l4_is_off" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "a100-pool", machine_type = "p4de.24xlarge", max_node_count = 2 }]
  }

  assert {
    condition     = yamldecode(output.helm_values).workers.pools.l4.enabled == false && yamldecode(output.helm_values).workers.pools.a100-80gb.enabled
    error_message = "the chart would wait for machines that cannot come"
  }
}

run "two_pools_of_one_gpu_are_one_for_the_chart" {
  command = plan

  variables {
    gpu_node_pools = [
      { name = "l4-spot", machine_type = "g6.xlarge", max_node_count = 6, spot = true },
      { name = "l4-large", machine_type = "g6.4xlarge", min_node_count = 1, max_node_count = 2 },
    ]
  }

  assert {
    condition     = yamldecode(output.helm_values).workers.pools.l4.maxReplicas == 8 && yamldecode(output.helm_values).workers.pools.l4.minReplicas == 1 && !yamldecode(output.helm_values).workers.pools.l4.spot
    error_message = "the chart's l4 is not the sum of both"
  }
  assert {
    condition     = yamldecode(output.helm_values).workers.pools.l4.resources.requests.memory == "10Gi"
    error_message = "a worker would not fit the smaller machine"
  }
}

run "the_chart_finds_images_and_models" {
  command = plan

  assert {
    condition     = yamldecode(output.helm_values).imageRegistry == output.artifact_registry_url && yamldecode(output.helm_values).auth.oauth2Proxy.image.registry == output.pull_through_urls["quay"]
    error_message = "images would come from elsewhere"
  }
  assert {
    condition     = yamldecode(output.helm_values).workers.common.clusterCache == { enabled = true, url = output.model_cache_url, write = false }
    error_message = "models would come from elsewhere"
  }
}

run "sign_in_with_oidc" {
  command = plan

  variables {
    install_ingress_nginx       = true
    sie_ingress_enabled         = true
    sie_ingress_host            = "sie.example.com"
    sie_ingress_tls_enabled     = true
    sie_ingress_tls_secret_name = "sie-tls"
    sie_auth_enabled            = true
    sie_auth_oidc_issuer_url    = "https://auth.example.com/realms/sie"
    sie_auth_secret_name        = "oauth2-proxy"
  }

  assert {
    condition     = yamldecode(output.helm_values).ingress == { enabled = true, host = "sie.example.com", tls = { enabled = true, secretName = "sie-tls" } }
    error_message = "the ingress is not as asked for"
  }
  assert {
    condition     = yamldecode(output.helm_values).auth.enabled && yamldecode(output.helm_values).auth.oauth2Proxy.oidcIssuerUrl == "https://auth.example.com/realms/sie" && yamldecode(output.helm_values).auth.oauth2Proxy.secret.name == "oauth2-proxy"
    error_message = "the sign-in is not as asked for"
  }
}

run "static_tokens" {
  command = plan

  variables {
    sie_router_auth_mode        = "static"
    sie_router_auth_secret_name = "sie-router-auth"
  }

  assert {
    condition     = yamldecode(output.helm_values).router.auth.mode == "static" && yamldecode(output.helm_values).router.auth.tokenSecretName == "sie-router-auth"
    error_message = "routers would ask for no token"
  }
}

run "the_release_has_these_values_and_yours_win" {
  command = plan

  variables {
    install_sie        = true
    sie_chart          = "../../../helm/sie-cluster"
    sie_image_registry = "images.example.com/sie"
    sie_values         = ["router: { replicas: 3 }"]
  }

  assert {
    condition     = helm_release.sie[0].values == tolist([output.helm_values, "router: { replicas: 3 }"]) && helm_release.sie[0].namespace == "sie" && helm_release.sie[0].name == "sie"
    error_message = "the release has other values"
  }
  assert {
    condition     = yamldecode(output.helm_values).imageRegistry == "images.example.com/sie"
    error_message = "images would come from elsewhere"
  }
}
