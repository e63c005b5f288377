# What somebody gets who names a project and a region.

mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  project_id = "my-project"
  region     = "us-central1"
}

run "the_cluster_is_regional_and_vpc_native" {
  command = plan

  assert {
    condition     = google_container_cluster.this.name == "sie-cluster" && google_container_cluster.this.location == "us-central1"
    error_message = "The default name and a regional cluster were expected."
  }

  assert {
    condition     = google_container_cluster.this.networking_mode == "VPC_NATIVE" && google_container_cluster.this.datapath_provider == "ADVANCED_DATAPATH"
    error_message = "The cluster must be VPC-native with Dataplane V2."
  }

  assert {
    condition     = google_container_cluster.this.ip_allocation_policy[0].cluster_secondary_range_name == "pods" && google_container_cluster.this.ip_allocation_policy[0].services_secondary_range_name == "services"
    error_message = "The ranges of the subnetwork must be used."
  }

  assert {
    condition     = google_container_cluster.this.remove_default_node_pool && google_container_cluster.this.deletion_protection
    error_message = "The default pool must go, and the cluster must be protected."
  }
}

run "nobody_reaches_the_api_from_outside" {
  command = plan

  assert {
    condition     = google_container_cluster.this.private_cluster_config[0].enable_private_nodes && google_container_cluster.this.private_cluster_config[0].enable_private_endpoint
    error_message = "Machines and API must be private."
  }

  assert {
    condition     = length(google_container_cluster.this.master_authorized_networks_config[0].cidr_blocks) == 0 && google_container_cluster.this.master_authorized_networks_config[0].gcp_public_cidrs_access_enabled == false
    error_message = "No network may be let in."
  }

  assert {
    condition     = google_container_cluster.this.control_plane_endpoints_config[0].dns_endpoint_config[0].allow_external_traffic == false
    error_message = "The DNS endpoint must not take outside traffic."
  }

  assert {
    condition     = output.kubectl_command == "gcloud container clusters get-credentials sie-cluster --region us-central1 --project my-project --internal-ip"
    error_message = "kubectl must be told of the private address: ${output.kubectl_command}"
  }
}

run "machines_reach_the_internet_through_nat_only" {
  command = plan

  assert {
    condition     = length(google_compute_router_nat.nat) == 1 && one(google_compute_router_nat.nat[0].subnetwork).source_ip_ranges_to_nat == toset(["ALL_IP_RANGES"])
    error_message = "One NAT for the subnetwork was expected."
  }

  assert {
    condition     = google_compute_subnetwork.machines[0].private_ip_google_access && !google_compute_network.vpc[0].auto_create_subnetworks
    error_message = "Buckets must be reached without NAT, and only our subnetwork may exist."
  }

  assert {
    condition     = google_compute_subnetwork.machines[0].log_config[0].flow_sampling == 0.1
    error_message = "Flow logs were expected."
  }
}

run "the_control_plane_reaches_webhooks" {
  command = plan

  assert {
    condition     = google_compute_firewall.webhooks[0].source_ranges == toset(["172.16.0.0/28"]) && one(google_compute_firewall.webhooks[0].allow).ports == tolist(["6443", "8443", "9443"])
    error_message = "KEDA's metrics and the webhooks must be reachable from the control plane, and from nowhere else."
  }

  assert {
    condition     = google_compute_firewall.webhooks[0].target_service_accounts == toset([google_service_account.nodes.email])
    error_message = "The rule must be for our machines only."
  }
}

run "one_cpu_machine_runs_and_no_gpu" {
  command = plan

  assert {
    condition     = google_container_node_pool.cpu.node_config[0].machine_type == "e2-standard-4" && google_container_node_pool.cpu.autoscaling[0].total_min_node_count == 1 && google_container_node_pool.cpu.autoscaling[0].total_max_node_count == 5
    error_message = "One to five e2-standard-4 in the whole cluster were expected."
  }

  assert {
    condition     = google_container_node_pool.gpu["l4-pool"].autoscaling[0].total_min_node_count == 0 && google_container_node_pool.gpu["l4-pool"].initial_node_count == 0
    error_message = "The GPU pool must start from zero."
  }
}

run "the_default_pool_is_l4_on_spot_machines" {
  command = plan

  assert {
    condition     = keys(google_container_node_pool.gpu) == ["l4-pool"] && google_container_node_pool.gpu["l4-pool"].node_config[0].machine_type == "g2-standard-8" && google_container_node_pool.gpu["l4-pool"].node_config[0].spot
    error_message = "One pool of g2-standard-8 spot machines was expected."
  }

  assert {
    condition     = google_container_node_pool.gpu["l4-pool"].node_config[0].guest_accelerator[0].type == "nvidia-l4" && google_container_node_pool.gpu["l4-pool"].node_config[0].guest_accelerator[0].count == 1
    error_message = "The GPU must follow from the machine."
  }

  assert {
    condition     = google_container_node_pool.gpu["l4-pool"].node_config[0].guest_accelerator[0].gpu_driver_installation_config[0].gpu_driver_version == "DEFAULT"
    error_message = "GKE must install its default driver."
  }

  assert {
    condition     = google_container_node_pool.gpu["l4-pool"].node_config[0].taint == tolist([{ key = "nvidia.com/gpu", value = "present", effect = "NO_SCHEDULE" }])
    error_message = "The taint of GPU machines was expected."
  }

  assert {
    condition     = google_container_node_pool.gpu["l4-pool"].node_config[0].disk_size_gb == 400 && google_container_node_pool.gpu["l4-pool"].autoscaling[0].location_policy == "ANY"
    error_message = "A disk for the chart's 300Gi of models, in whatever zone has machines, was expected."
  }
}

run "machines_are_hardened" {
  command = plan

  assert {
    condition = alltrue([
      for pool in concat([google_container_node_pool.cpu], values(google_container_node_pool.gpu)) :
      pool.node_config[0].shielded_instance_config[0].enable_secure_boot && pool.node_config[0].shielded_instance_config[0].enable_integrity_monitoring && pool.node_config[0].kubelet_config[0].insecure_kubelet_readonly_port_enabled == "FALSE" && pool.node_config[0].workload_metadata_config[0].mode == "GKE_METADATA" && pool.management[0].auto_repair && pool.management[0].auto_upgrade
    ])
    error_message = "Shielded machines, no read-only port, no metadata of the machine for pods, repair and upgrades were expected."
  }

  assert {
    condition     = google_container_cluster.this.node_config[0].service_account == google_service_account.nodes.email
    error_message = "The default pool must have the machines' account while it lives."
  }

  assert {
    condition     = alltrue([for pool in concat([google_container_node_pool.cpu], values(google_container_node_pool.gpu)) : pool.node_config[0].service_account == google_service_account.nodes.email])
    error_message = "Machines must not have the project's default account."
  }
}

run "the_machines_account_may_little" {
  command = plan

  assert {
    condition     = google_project_iam_member.nodes.role == "roles/container.defaultNodeServiceAccount"
    error_message = "GKE's least role was expected."
  }

  assert {
    condition     = alltrue([for member in values(google_artifact_registry_repository_iam_member.nodes) : member.role == "roles/artifactregistry.reader"]) && keys(google_artifact_registry_repository_iam_member.nodes) == ["ghcr", "images", "k8s", "quay"]
    error_message = "It must read our repositories, and none beside them."
  }
}

run "workers_have_an_account_of_their_own" {
  command = plan

  assert {
    condition     = google_container_cluster.this.workload_identity_config[0].workload_pool == "my-project.svc.id.goog"
    error_message = "The project's workload pool was expected."
  }

  assert {
    condition     = google_service_account_iam_member.workload[0].member == "serviceAccount:my-project.svc.id.goog[sie/sie-server]" && google_service_account_iam_member.workload[0].role == "roles/iam.workloadIdentityUser"
    error_message = "sie/sie-server must be bound: ${google_service_account_iam_member.workload[0].member}"
  }

  assert {
    condition     = google_service_account.workload[0].account_id == "sie-cluster-workload" && output.workload_identity_sa == "sie-cluster-workload@my-project.iam.gserviceaccount.com"
    error_message = "The output must be the account's e-mail alone: ${output.workload_identity_sa}"
  }

  assert {
    condition     = output.workload_identity_annotation == tomap({ "iam.gke.io/gcp-service-account" = "sie-cluster-workload@my-project.iam.gserviceaccount.com" })
    error_message = "The annotation must have its key once."
  }
}

run "workers_read_and_list_models" {
  command = plan

  assert {
    condition     = google_storage_bucket.models[0].name == "my-project-sie-cluster-models" && output.model_cache_url == "gs://my-project-sie-cluster-models/models"
    error_message = "A bucket of this project and cluster was expected."
  }

  assert {
    condition     = google_storage_bucket_iam_member.workload[0].role == "roles/storage.objectViewer" && length(google_storage_bucket_iam_member.workload[0].condition) == 0
    error_message = "Reading and listing without a condition was expected."
  }

  assert {
    condition     = google_storage_bucket.models[0].public_access_prevention == "enforced" && google_storage_bucket.models[0].uniform_bucket_level_access && !google_storage_bucket.models[0].force_destroy
    error_message = "The bucket must never be public, nor deleted with models in it."
  }

  assert {
    condition     = google_storage_bucket.models[0].soft_delete_policy[0].retention_duration_seconds == 0
    error_message = "Deleted models must not bill."
  }
}

run "images_come_from_artifact_registry" {
  command = plan

  assert {
    condition     = google_artifact_registry_repository.this["images"].mode == "STANDARD_REPOSITORY" && google_artifact_registry_repository.this["images"].docker_config[0].immutable_tags
    error_message = "A repository whose tags stay what they are was expected."
  }

  assert {
    condition     = google_artifact_registry_repository.this["ghcr"].mode == "REMOTE_REPOSITORY" && google_artifact_registry_repository.this["ghcr"].remote_repository_config[0].common_repository[0].uri == "https://ghcr.io"
    error_message = "A copy of ghcr.io was expected."
  }

  assert {
    condition     = output.artifact_registry_url == "us-central1-docker.pkg.dev/my-project/sie-cluster-images" && output.pull_through_urls["quay"] == "us-central1-docker.pkg.dev/my-project/sie-cluster-quay"
    error_message = "The repositories' addresses were expected."
  }
}

run "logs_are_on_and_managed_prometheus_is_off" {
  command = plan

  assert {
    condition     = google_container_cluster.this.logging_config[0].enable_components == tolist(["SYSTEM_COMPONENTS", "WORKLOADS"])
    error_message = "Logs of the system and of workloads were expected."
  }

  assert {
    condition     = google_container_cluster.this.monitoring_config[0].managed_prometheus[0].enabled == false
    error_message = "Managed Prometheus must be turned off, not left unsaid."
  }
}

run "nothing_is_installed_and_nothing_is_provisioned_unasked" {
  command = plan

  assert {
    condition     = length(helm_release.ingress_nginx) == 0 && length(helm_release.sie) == 0
    error_message = "Without being asked for, nothing may be installed."
  }

  assert {
    condition     = google_container_cluster.this.cluster_autoscaling[0].enabled == false && length(google_container_cluster.this.cluster_autoscaling[0].resource_limits) == 0
    error_message = "Node auto-provisioning must be off."
  }

  assert {
    condition     = length(google_project_service.required) == 0 && length(google_service_account_iam_member.deployer) == 0
    error_message = "APIs and roles of the deployer are only for who asks."
  }
}
