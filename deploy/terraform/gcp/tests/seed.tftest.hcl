# The two configurations of the product's own page.

mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  project_id = "my-project"
  region     = "us-central1"
}

run "production_multi_gpu" {
  command = plan

  variables {
    cluster_name = "sie-prod"
    gpu_node_pools = [
      {
        name           = "l4-pool"
        machine_type   = "g2-standard-8"
        gpu_type       = "nvidia-l4"
        gpu_count      = 1
        min_node_count = 1
        max_node_count = 20
        spot           = false
      },
      {
        name           = "a100-pool"
        machine_type   = "a2-highgpu-1g"
        gpu_type       = "nvidia-tesla-a100"
        gpu_count      = 1
        min_node_count = 0
        max_node_count = 10
        spot           = true
      },
    ]
    enable_workload_identity = true
    sie_namespace            = "sie"
    sie_service_account_name = "sie-server"
  }

  assert {
    condition     = { for name, pool in google_container_node_pool.gpu : name => pool.node_config[0].machine_type } == { l4-pool = "g2-standard-8", a100-pool = "a2-highgpu-1g" }
    error_message = "The machines of both pools were expected."
  }

  assert {
    condition     = { for name, pool in google_container_node_pool.gpu : name => pool.node_config[0].spot } == { l4-pool = false, a100-pool = true }
    error_message = "Only the A100 machines are on spot."
  }

  assert {
    condition     = { for name, pool in google_container_node_pool.gpu : name => pool.node_config[0].guest_accelerator[0].type } == { l4-pool = "nvidia-l4", a100-pool = "nvidia-tesla-a100" }
    error_message = "The GPUs of both pools were expected."
  }

  assert {
    condition     = alltrue([for pool in values(google_container_node_pool.gpu) : pool.node_config[0].guest_accelerator[0].gpu_driver_installation_config[0].gpu_driver_version == "DEFAULT"])
    error_message = "Drivers must be installed."
  }

  assert {
    condition     = { for name, pool in google_container_node_pool.gpu : name => [pool.autoscaling[0].total_min_node_count, pool.autoscaling[0].total_max_node_count] } == { l4-pool = [1, 20], a100-pool = [0, 10] }
    error_message = "Counts are for the whole pool."
  }

  assert {
    condition     = alltrue([for pool in values(google_container_node_pool.gpu) : one(pool.node_config[0].taint).key == "nvidia.com/gpu"])
    error_message = "GPU machines must be tainted."
  }

  assert {
    condition     = google_container_cluster.this.private_cluster_config[0].enable_private_endpoint
    error_message = "No public API was asked for."
  }

  assert {
    condition     = output.workload_identity_member == "serviceAccount:my-project.svc.id.goog[sie/sie-server]" && output.workload_identity_sa == "sie-prod-workload@my-project.iam.gserviceaccount.com"
    error_message = "The workers' accounts were expected."
  }

  assert {
    condition     = yamldecode(output.helm_values).workers.pools.l4.minReplicas == 1 && yamldecode(output.helm_values).workers.pools.l4.maxReplicas == 20 && !yamldecode(output.helm_values).workers.pools.l4.spot
    error_message = "The chart's L4 pool must be what the machines are."
  }

  assert {
    condition     = yamldecode(output.helm_values).workers.pools["a100-40gb"].minReplicas == 0 && yamldecode(output.helm_values).workers.pools["a100-40gb"].maxReplicas == 10 && yamldecode(output.helm_values).workers.pools["a100-40gb"].spot
    error_message = "The chart's A100 pool must be what the machines are."
  }
}

run "access_and_auth" {
  command = plan

  variables {
    install_ingress_nginx = true
    ingress_nginx_service_annotations = {
      "cloud.google.com/load-balancer-type" = "Internal"
    }
    sie_ingress_enabled         = true
    sie_ingress_host            = "sie.example.com"
    sie_ingress_tls_enabled     = true
    sie_ingress_tls_secret_name = "sie-tls"
    sie_auth_enabled            = true
    sie_auth_oidc_issuer_url    = "https://auth.example.com/realms/sie"
    sie_auth_secret_name        = "oauth2-proxy"
    sie_router_auth_mode        = "static"
    sie_router_auth_secret_name = "sie-router-auth"
  }

  assert {
    condition     = yamldecode(one(helm_release.ingress_nginx[0].values)).controller.service.annotations == { "cloud.google.com/load-balancer-type" = "Internal" }
    error_message = "The internal load balancer was expected."
  }

  assert {
    condition     = yamldecode(output.helm_values).ingress == { enabled = true, host = "sie.example.com", tls = { enabled = true, secretName = "sie-tls" } }
    error_message = "The chart's ingress was expected."
  }

  assert {
    condition     = yamldecode(output.helm_values).auth.enabled && yamldecode(output.helm_values).auth.oauth2Proxy.oidcIssuerUrl == "https://auth.example.com/realms/sie" && yamldecode(output.helm_values).auth.oauth2Proxy.secret.name == "oauth2-proxy"
    error_message = "Sign-in was expected."
  }

  assert {
    condition     = yamldecode(output.helm_values).router.auth.mode == "none"
    error_message = "Tokens are the alternative to sign-in: with both, sign-in wins."
  }
}

run "static_tokens" {
  command = plan

  variables {
    sie_router_auth_mode        = "static"
    sie_router_auth_secret_name = "sie-router-auth"
  }

  assert {
    condition     = yamldecode(output.helm_values).router.auth == { mode = "static", tokenSecretName = "sie-router-auth", exemptOperational = "metrics" }
    error_message = "Tokens from the Secret, and metrics without, were expected."
  }
}

run "the_chart_is_installed_on_request" {
  command = plan

  variables {
    install_sie = true
    sie_values  = ["router: { replicas: 3 }"]
  }

  assert {
    condition     = helm_release.sie[0].name == "sie" && helm_release.sie[0].namespace == "sie" && helm_release.sie[0].create_namespace && helm_release.sie[0].version == "0.1.10"
    error_message = "The release sie in the namespace sie was expected."
  }

  assert {
    condition     = helm_release.sie[0].values == tolist([output.helm_values, "router: { replicas: 3 }"])
    error_message = "The module's values first, then the caller's, were expected."
  }
}
