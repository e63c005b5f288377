# What is refused, and by which variable: its message says what to do.

mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  project_id = "my-project"
  region     = "us-central1"
}

run "a_project_number" {
  command = plan

  variables {
    project_id = "123456789012"
  }

  expect_failures = [var.project_id]
}

run "a_zone_instead_of_a_region" {
  command = plan

  variables {
    region = "us-central1-a"
  }

  expect_failures = [var.region]
}

run "a_name_too_long_for_service_accounts" {
  command = plan

  variables {
    cluster_name = "a-cluster-name-of-twenty-two"
  }

  expect_failures = [var.cluster_name]
}

run "a_name_with_capitals" {
  command = plan

  variables {
    cluster_name = "SIE"
  }

  expect_failures = [var.cluster_name]
}

run "an_old_kubernetes" {
  command = plan

  variables {
    kubernetes_version = "1.27"
  }

  expect_failures = [var.kubernetes_version]
}

run "an_unknown_channel" {
  command = plan

  variables {
    release_channel = "WEEKLY"
  }

  expect_failures = [var.release_channel]
}

run "a_window_that_ends_before_it_starts" {
  command = plan

  variables {
    maintenance_window = { start_time = "2025-01-04T10:00:00Z", end_time = "2025-01-04T02:00:00Z", recurrence = "FREQ=WEEKLY" }
  }

  expect_failures = [var.maintenance_window]
}

run "a_window_that_never_recurs" {
  command = plan

  variables {
    maintenance_window = { start_time = "2025-01-04T02:00:00Z", end_time = "2025-01-04T10:00:00Z", recurrence = "weekly" }
  }

  expect_failures = [var.maintenance_window]
}

run "a_deployer_with_a_prefix" {
  command = plan

  variables {
    deployer_service_account = "serviceAccount:terraform@my-project.iam.gserviceaccount.com"
  }

  expect_failures = [var.deployer_service_account]
}

run "labels_with_capitals" {
  command = plan

  variables {
    labels = { Team = "Search" }
  }

  expect_failures = [var.labels]
}

run "the_whole_internet_as_an_allowlist" {
  command = plan

  variables {
    authorized_networks = [{ cidr_block = "0.0.0.0/0" }]
  }

  expect_failures = [var.authorized_networks]
}

run "an_address_that_is_none" {
  command = plan

  variables {
    private_networks = ["192.168.0.0"]
  }

  expect_failures = [var.private_networks]
}

run "any_group_for_roles" {
  command = plan

  variables {
    rbac_security_group = "admins@example.com"
  }

  expect_failures = [var.rbac_security_group]
}

run "a_control_plane_with_too_many_addresses" {
  command = plan

  variables {
    master_ipv4_cidr_block = "172.16.0.0/24"
  }

  expect_failures = [var.master_ipv4_cidr_block]
}

run "a_key_of_another_region" {
  command = plan

  variables {
    kms_key_name = "projects/keys/locations/europe-west4/keyRings/r/cryptoKeys/gke"
  }

  expect_failures = [var.kms_key_name]
}

run "a_network_that_would_be_ignored" {
  command = plan

  variables {
    network = "mine"
  }

  expect_failures = [var.create_network]
}

run "no_network_at_all" {
  command = plan

  variables {
    create_network = false
  }

  expect_failures = [var.create_network]
}

run "a_subnetwork_of_another_region" {
  command = plan

  variables {
    create_network = false
    network        = "n"
    subnetwork     = "projects/host/regions/europe-west4/subnetworks/machines"
  }

  expect_failures = [var.subnetwork]
}

run "one_range_for_pods_and_services" {
  command = plan

  variables {
    pods_range_name     = "all"
    services_range_name = "all"
  }

  expect_failures = [var.services_range_name]
}

run "a_subnetwork_too_small" {
  command = plan

  variables {
    subnet_cidr = "10.0.0.0/28"
  }

  expect_failures = [var.subnet_cidr]
}

run "too_few_addresses_for_pods" {
  command = plan

  variables {
    pods_cidr = "10.1.0.0/24"
  }

  expect_failures = [var.pods_cidr]
}

run "services_that_are_no_network" {
  command = plan

  variables {
    services_cidr = "10.2.0.0"
  }

  expect_failures = [var.services_cidr]
}

run "networks_that_overlap" {
  command = plan

  variables {
    pods_cidr = "10.0.0.0/14"
  }

  expect_failures = [google_compute_subnetwork.machines]
}

run "a_cpu_pool_of_gpu_machines" {
  command = plan

  variables {
    cpu_node_pool = { machine_type = "g2-standard-8" }
  }

  expect_failures = [var.cpu_node_pool]
}

run "no_machine_for_routers" {
  command = plan

  variables {
    cpu_node_pool = { min_node_count = 0 }
  }

  expect_failures = [var.cpu_node_pool]
}

run "a_cpu_disk_too_small" {
  command = plan

  variables {
    cpu_node_pool = { disk_size_gb = 10 }
  }

  expect_failures = [var.cpu_node_pool]
}

run "cpu_zones_of_another_region" {
  command = plan

  variables {
    cpu_node_pool = { zones = ["europe-west4-a"] }
  }

  expect_failures = [var.cpu_node_pool]
}

run "a_pool_name_with_capitals" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "L4", machine_type = "g2-standard-8", max_node_count = 2 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "two_pools_of_one_name" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "g2-standard-8", max_node_count = 1 }, { name = "p", machine_type = "a2-highgpu-1g", max_node_count = 1 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "a_minimum_above_the_maximum" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "g2-standard-8", max_node_count = 2, min_node_count = 3 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "an_unknown_machine_without_its_gpu" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "n1-standard-8", max_node_count = 2 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "a_gpu_that_the_machine_does_not_have" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "g2-standard-8", max_node_count = 2, gpu_type = "nvidia-tesla-a100" }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "more_gpus_than_the_machine_has" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "g2-standard-8", max_node_count = 2, gpu_count = 2 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "no_gpu_on_a_gpu_machine" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "n1-standard-8", max_node_count = 2, gpu_type = "nvidia-tesla-t4", gpu_count = 0 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "an_unknown_driver" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "g2-standard-8", max_node_count = 2, gpu_driver_version = "newest" }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "drives_that_the_machine_cannot_have" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "g2-standard-8", max_node_count = 2, local_ssd_count = 3 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "a_disk_too_small_for_the_driver" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "g2-standard-8", max_node_count = 2, disk_size_gb = 20 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "an_unknown_disk" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "g2-standard-8", max_node_count = 2, disk_type = "gp3" }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "zones_of_another_region" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "g2-standard-8", max_node_count = 2, zones = ["europe-west4-a"] }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "a_taint_in_the_words_of_kubernetes" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "g2-standard-8", max_node_count = 2, taints = [{ key = "k", value = "v", effect = "NoSchedule" }] }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "a_label_that_is_googles" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "g2-standard-8", max_node_count = 2, labels = { "cloud.google.com/gke-accelerator" = "mine" } }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "spot_machines_of_a_reservation" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "g2-standard-8", max_node_count = 2, spot = true, reservation = "ours" }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "an_upgrade_that_may_not_begin" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "p", machine_type = "g2-standard-8", max_node_count = 2, max_surge = 0, max_unavailable = 0 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "limits_without_room_for_a_machine" {
  command = plan

  variables {
    node_auto_provisioning_limits = { cpu = 1 }
  }

  expect_failures = [var.node_auto_provisioning_limits]
}

run "a_namespace_with_capitals" {
  command = plan

  variables {
    sie_namespace = "SIE"
  }

  expect_failures = [var.sie_namespace]
}

run "an_account_with_a_slash" {
  command = plan

  variables {
    sie_service_account_name = "sie/server"
  }

  expect_failures = [var.sie_service_account_name]
}

run "a_registry_that_keeps_nothing" {
  command = plan

  variables {
    registry_keep_images = 0
  }

  expect_failures = [var.registry_keep_images]
}

run "a_registry_without_a_scheme" {
  command = plan

  variables {
    pull_through_registries = { quay = "quay.io" }
  }

  expect_failures = [var.pull_through_registries]
}

run "two_buckets" {
  command = plan

  variables {
    model_cache_bucket = "my-models"
  }

  expect_failures = [var.create_model_cache]
}

run "a_bucket_with_a_prefix" {
  command = plan

  variables {
    create_model_cache = false
    model_cache_bucket = "gs://my-models/models"
  }

  expect_failures = [var.model_cache_bucket]
}

run "models_that_expire_yesterday" {
  command = plan

  variables {
    model_cache_expiration_days = -1
  }

  expect_failures = [var.model_cache_expiration_days]
}

run "annotations_that_nobody_reads" {
  command = plan

  variables {
    ingress_nginx_service_annotations = { "cloud.google.com/load-balancer-type" = "Internal" }
  }

  expect_failures = [var.ingress_nginx_service_annotations]
}

run "a_certificate_without_a_site" {
  command = plan

  variables {
    sie_ingress_tls_enabled = true
  }

  expect_failures = [var.sie_ingress_tls_enabled]
}

run "a_sign_in_without_an_ingress" {
  command = plan

  variables {
    sie_auth_enabled         = true
    sie_auth_oidc_issuer_url = "https://auth.example.com"
  }

  expect_failures = [var.sie_auth_enabled]
}

run "a_sign_in_without_a_provider" {
  command = plan

  variables {
    sie_ingress_enabled = true
    sie_ingress_host    = "sie.example.com"
    sie_auth_enabled    = true
  }

  expect_failures = [var.sie_auth_oidc_issuer_url]
}

run "an_unknown_way_to_authenticate" {
  command = plan

  variables {
    sie_router_auth_mode = "basic"
  }

  expect_failures = [var.sie_router_auth_mode]
}

run "tokens_without_a_secret" {
  command = plan

  variables {
    sie_router_auth_mode = "static"
  }

  expect_failures = [var.sie_router_auth_secret_name]
}

run "a_chart_that_the_module_does_not_install" {
  command = plan

  variables {
    chart_versions = { argo = "1.0.0" }
  }

  expect_failures = [var.chart_versions]
}

run "a_region_without_the_machine" {
  command = plan

  override_data {
    target = data.google_compute_machine_types.offered
    values = { machine_types = [] }
  }

  expect_failures = [google_container_node_pool.gpu["l4-pool"]]
}
