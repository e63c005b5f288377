# What changes when somebody chooses.

mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  project_id = "my-project"
  region     = "us-central1"
}

run "an_allowlist_opens_the_api_to_it_alone" {
  command = plan

  variables {
    authorized_networks = [{ cidr_block = "203.0.113.7/32", display_name = "office" }]
  }

  assert {
    condition     = google_container_cluster.this.private_cluster_config[0].enable_private_endpoint == false && one(google_container_cluster.this.master_authorized_networks_config[0].cidr_blocks).cidr_block == "203.0.113.7/32"
    error_message = "The office, and nobody else, must be let in."
  }

  assert {
    condition     = !strcontains(output.kubectl_command, "--internal-ip") && !strcontains(output.kubectl_command, "--dns-endpoint")
    error_message = "kubectl must use the public address: ${output.kubectl_command}"
  }
}

run "the_dns_endpoint_opens_no_address" {
  command = plan

  variables {
    enable_dns_endpoint = true
  }

  assert {
    condition     = google_container_cluster.this.control_plane_endpoints_config[0].dns_endpoint_config[0].allow_external_traffic && google_container_cluster.this.private_cluster_config[0].enable_private_endpoint
    error_message = "The name must be reachable, the address must not."
  }

  assert {
    condition     = endswith(output.kubectl_command, " --dns-endpoint") && output.cluster_ca_certificate == null
    error_message = "kubectl must use the name: ${output.kubectl_command}"
  }
}

run "private_networks_reach_the_private_address" {
  command = plan

  variables {
    private_networks = ["192.168.0.0/16"]
  }

  assert {
    condition     = google_container_cluster.this.private_cluster_config[0].enable_private_endpoint && one(google_container_cluster.this.master_authorized_networks_config[0].cidr_blocks).cidr_block == "192.168.0.0/16"
    error_message = "The VPN must be let in, without a public address."
  }
}

run "an_existing_network_is_used_as_it_is" {
  command = plan

  variables {
    create_network      = false
    network             = "projects/host/global/networks/shared"
    subnetwork          = "projects/host/regions/us-central1/subnetworks/machines"
    pods_range_name     = "gke-pods"
    services_range_name = "gke-services"
  }

  assert {
    condition     = length(google_compute_network.vpc) + length(google_compute_subnetwork.machines) + length(google_compute_router.nat) + length(google_compute_router_nat.nat) == 0
    error_message = "No network may be made."
  }

  assert {
    condition     = google_container_cluster.this.network == "projects/host/global/networks/shared" && google_container_cluster.this.subnetwork == "projects/host/regions/us-central1/subnetworks/machines" && google_container_cluster.this.ip_allocation_policy[0].cluster_secondary_range_name == "gke-pods"
    error_message = "The named network and ranges were expected."
  }

  assert {
    condition     = google_compute_firewall.webhooks[0].project == "host"
    error_message = "The rule of a shared VPC belongs to its project."
  }
}

run "the_owner_of_a_shared_network_makes_its_rules" {
  command = plan

  variables {
    create_network               = false
    network                      = "shared"
    subnetwork                   = "machines"
    create_webhook_firewall_rule = false
  }

  assert {
    condition     = length(google_compute_firewall.webhooks) == 0
    error_message = "No rule may be made."
  }
}

run "logging_is_truly_off" {
  command = plan

  variables {
    enable_cloud_logging = false
  }

  assert {
    condition     = length(google_container_cluster.this.logging_config) == 1 && length(google_container_cluster.this.logging_config[0].enable_components) == 0
    error_message = "An empty list turns logging off; a missing block would not."
  }
}

run "managed_prometheus_is_truly_on" {
  command = plan

  variables {
    enable_managed_prometheus = true
  }

  assert {
    condition     = google_container_cluster.this.monitoring_config[0].managed_prometheus[0].enabled
    error_message = "Managed Prometheus was asked for."
  }
}

run "auto_provisioning_knows_its_limits" {
  command = plan

  variables {
    enable_node_auto_provisioning = true
    node_auto_provisioning_limits = { gpus = { nvidia-l4 = 4, nvidia-h100-80gb = 8 } }
  }

  assert {
    condition     = { for limit in google_container_cluster.this.cluster_autoscaling[0].resource_limits : limit.resource_type => limit.maximum } == { cpu = 200, memory = 1000, nvidia-l4 = 4, nvidia-h100-80gb = 8 }
    error_message = "Limits of cores, memory and the named GPUs were expected."
  }

  assert {
    condition     = google_container_cluster.this.cluster_autoscaling[0].auto_provisioning_defaults[0].shielded_instance_config[0].enable_secure_boot && google_container_cluster.this.cluster_autoscaling[0].auto_provisioning_defaults[0].service_account == google_service_account.nodes.email
    error_message = "Its machines must be as hardened as ours."
  }
}

run "apis_are_turned_on_and_stay_on" {
  command = plan

  variables {
    enable_apis = true
  }

  assert {
    condition     = length(setsubtract(["container.googleapis.com", "compute.googleapis.com", "artifactregistry.googleapis.com", "iam.googleapis.com"], values(google_project_service.required)[*].service)) == 0
    error_message = "The four APIs that GKE, machines, images and accounts need were expected."
  }

  assert {
    condition     = alltrue([for api in values(google_project_service.required) : api.disable_on_destroy == false])
    error_message = "Others may use them: they must stay on."
  }
}

run "without_workload_identity_pods_are_their_machines" {
  command = plan

  variables {
    enable_workload_identity = false
  }

  assert {
    condition     = length(google_container_cluster.this.workload_identity_config) == 0 && length(google_service_account.workload) == 0 && output.workload_identity_sa == ""
    error_message = "No account for workers was expected."
  }

  assert {
    condition     = google_storage_bucket_iam_member.workload[0].member == google_service_account.nodes.member && google_container_node_pool.cpu.node_config[0].workload_metadata_config[0].mode == "GCE_METADATA"
    error_message = "The machines' account must read models, and pods must have it."
  }
}

run "workers_may_write_models" {
  command = plan

  variables {
    model_cache_write              = true
    model_cache_versioning_enabled = true
    model_cache_expiration_days    = 90
    deletion_protection            = false
  }

  assert {
    condition     = google_storage_bucket_iam_member.workload[0].role == "roles/storage.objectUser" && yamldecode(output.helm_values).workers.common.clusterCache.write
    error_message = "Cloud and chart must agree that workers write."
  }

  assert {
    condition     = google_storage_bucket.models[0].force_destroy && length(google_storage_bucket.models[0].lifecycle_rule) == 3
    error_message = "Without protection the bucket goes with its models; uploads that stopped, old versions and old models go by themselves."
  }
}

run "an_existing_bucket_is_read" {
  command = plan

  variables {
    create_model_cache = false
    model_cache_bucket = "my-models"
  }

  assert {
    condition     = length(google_storage_bucket.models) == 0 && google_storage_bucket_iam_member.workload[0].bucket == "my-models" && yamldecode(output.helm_values).workers.common.clusterCache == { enabled = true, url = "gs://my-models/models", write = false }
    error_message = "The named bucket was expected, in cloud and chart."
  }
}

run "no_bucket_and_no_registry" {
  command = plan

  variables {
    create_model_cache       = false
    create_artifact_registry = false
    sie_image_registry       = "registry.example.com/sie"
  }

  assert {
    condition     = output.model_cache_url == null && !yamldecode(output.helm_values).workers.common.clusterCache.enabled && length(google_storage_bucket_iam_member.workload) == 0
    error_message = "No cache was expected."
  }

  assert {
    condition     = length(google_artifact_registry_repository.this) == 0 && yamldecode(output.helm_values).imageRegistry == "registry.example.com/sie"
    error_message = "Images must come from where the caller says."
  }
}

run "a_pool_with_everything" {
  command = plan

  variables {
    gpu_node_pools = [{
      name                      = "a100-80"
      machine_type              = "a2-ultragpu-2g"
      gpu_driver_version        = "LATEST"
      max_node_count            = 4
      zones                     = ["us-central1-c", "us-central1-a"]
      taints                    = [{ key = "team", value = "search", effect = "NO_EXECUTE" }]
      labels                    = { team = "search", node-type = "mine" }
      max_surge                 = 1
      max_unavailable           = 0
      reservation               = "ours"
      compact_placement         = true
      secondary_boot_disk_image = "projects/my-project/global/images/sie-images"
    }]
  }

  assert {
    condition     = google_container_node_pool.gpu["a100-80"].node_config[0].guest_accelerator[0].type == "nvidia-a100-80gb" && google_container_node_pool.gpu["a100-80"].node_config[0].guest_accelerator[0].count == 2 && google_container_node_pool.gpu["a100-80"].node_config[0].guest_accelerator[0].gpu_driver_installation_config[0].gpu_driver_version == "LATEST"
    error_message = "Two A100 of 80 GB with the latest driver were expected."
  }

  assert {
    condition     = google_container_node_pool.gpu["a100-80"].node_config[0].ephemeral_storage_local_ssd_config[0].local_ssd_count == 2 && google_container_node_pool.gpu["a100-80"].node_config[0].disk_size_gb == 100
    error_message = "The two drives that the machine always has must be the pods' disk."
  }

  assert {
    condition     = google_container_node_pool.gpu["a100-80"].node_config[0].labels == tomap({ team = "search", node-type = "mine" }) && one(google_container_node_pool.gpu["a100-80"].node_config[0].taint).effect == "NO_EXECUTE"
    error_message = "The caller's labels win, and its taints replace the default."
  }

  assert {
    condition     = google_container_node_pool.gpu["a100-80"].node_locations == toset(["us-central1-a", "us-central1-c"]) && length(data.google_compute_zones.up) == 0
    error_message = "The named zones must be used, without looking any up."
  }

  assert {
    condition     = google_container_node_pool.gpu["a100-80"].node_config[0].reservation_affinity[0].values == toset(["ours"]) && google_container_node_pool.gpu["a100-80"].placement_policy[0].type == "COMPACT" && google_container_node_pool.gpu["a100-80"].node_config[0].secondary_boot_disks[0].mode == "CONTAINER_IMAGE_CACHE"
    error_message = "Reservation, placement and the disk with images were expected."
  }

  assert {
    condition     = google_container_node_pool.gpu["a100-80"].upgrade_settings[0].max_surge == 1 && google_container_node_pool.gpu["a100-80"].upgrade_settings[0].max_unavailable == 0
    error_message = "The caller says how upgrades go."
  }
}

run "machines_that_the_module_does_not_know" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "t4", machine_type = "n1-standard-8", gpu_type = "nvidia-tesla-t4", gpu_count = 2, max_node_count = 3, local_ssd_count = 1 }]
  }

  assert {
    condition     = google_container_node_pool.gpu["t4"].node_config[0].guest_accelerator[0].type == "nvidia-tesla-t4" && google_container_node_pool.gpu["t4"].node_config[0].guest_accelerator[0].count == 2
    error_message = "The named GPUs were expected."
  }

  assert {
    condition     = yamldecode(output.helm_values).workers.pools == { l4 = { enabled = false } }
    error_message = "The chart has no pool for machines whose cores and memory nobody knows: add one with sie_values."
  }
}

run "no_gpu_pools_at_all" {
  command = plan

  variables {
    gpu_node_pools = []
  }

  assert {
    condition     = length(google_container_node_pool.gpu) == 0 && !yamldecode(output.helm_values).workers.pools.l4.enabled
    error_message = "Neither machines nor a pool that waits for them were expected."
  }
}

run "keys_of_ones_own" {
  command = plan

  variables {
    kms_key_name             = "projects/keys/locations/us-central1/keyRings/r/cryptoKeys/gke"
    disk_kms_key_name        = "projects/keys/locations/us-central1/keyRings/r/cryptoKeys/disks"
    model_cache_kms_key_name = "projects/keys/locations/us-central1/keyRings/r/cryptoKeys/models"
    registry_kms_key_name    = "projects/keys/locations/us-central1/keyRings/r/cryptoKeys/images"
  }

  assert {
    condition     = google_container_cluster.this.database_encryption[0].state == "ENCRYPTED" && endswith(google_container_cluster.this.database_encryption[0].key_name, "/gke")
    error_message = "Secrets must be encrypted with the key."
  }

  assert {
    condition     = endswith(google_container_node_pool.gpu["l4-pool"].node_config[0].boot_disk_kms_key, "/disks") && endswith(google_storage_bucket.models[0].encryption[0].default_kms_key_name, "/models") && endswith(google_artifact_registry_repository.this["images"].kms_key_name, "/images")
    error_message = "Disks, models and images must be encrypted with theirs."
  }
}

run "the_deployer_may_use_the_machines_account" {
  command = plan

  variables {
    deployer_service_account = "terraform@my-project.iam.gserviceaccount.com"
  }

  assert {
    condition     = google_service_account_iam_member.deployer[0].member == "serviceAccount:terraform@my-project.iam.gserviceaccount.com" && google_service_account_iam_member.deployer[0].role == "roles/iam.serviceAccountUser"
    error_message = "The deployer must be allowed to start machines."
  }
}

run "groups_in_kubernetes_roles" {
  command = plan

  variables {
    rbac_security_group = "gke-security-groups@example.com"
  }

  assert {
    condition     = google_container_cluster.this.authenticator_groups_config[0].security_group == "gke-security-groups@example.com"
    error_message = "The group was expected."
  }
}

run "upgrades_at_any_time" {
  command = plan

  variables {
    maintenance_window = null
  }

  assert {
    condition     = length(google_container_cluster.this.maintenance_policy) == 0
    error_message = "No window was expected."
  }
}
