# What the module refuses, before anything is made.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  region = "eu-central-1"
}

run "a_zone_is_not_a_region" {
  command = plan

  variables {
    region = "eu-central-1a"
  }

  expect_failures = [var.region]
}

run "a_long_cluster_name_would_make_longer_names" {
  command = plan

  variables {
    cluster_name = "sie-cluster-of-the-search-team"
  }

  expect_failures = [var.cluster_name]
}

run "capitals_are_not_for_names" {
  command = plan

  variables {
    cluster_name = "SIE"
  }

  expect_failures = [var.cluster_name]
}

run "old_versions_of_kubernetes" {
  command = plan

  variables {
    kubernetes_version = "1.29"
  }

  expect_failures = [var.kubernetes_version]
}

run "a_patch_is_not_a_version_of_eks" {
  command = plan

  variables {
    kubernetes_version = "1.33.2"
  }

  expect_failures = [var.kubernetes_version]
}

run "an_unknown_support" {
  command = plan

  variables {
    upgrade_support_type = "NONE"
  }

  expect_failures = [var.upgrade_support_type]
}

run "tags_of_amazon" {
  command = plan

  variables {
    tags = { "aws:team" = "search" }
  }

  expect_failures = [var.tags]
}

run "the_whole_internet_is_no_allowlist" {
  command = plan

  variables {
    authorized_networks = [{ cidr_block = "0.0.0.0/0" }]
  }

  expect_failures = [var.authorized_networks]
}

run "nor_are_its_halves" {
  command = plan

  variables {
    authorized_networks = [{ cidr_block = "0.0.0.0/1" }, { cidr_block = "128.0.0.0/1" }]
  }

  expect_failures = [var.authorized_networks]
}

run "an_address_is_not_a_network" {
  command = plan

  variables {
    private_networks = ["192.168.0.1"]
  }

  expect_failures = [var.private_networks]
}

run "a_cluster_that_nobody_may_use" {
  command = plan

  variables {
    cluster_creator_admin = false
    access_entries        = { team = { principal_arn = "arn:aws:iam::123456789012:role/team", policy = "view" } }
  }

  expect_failures = [var.cluster_creator_admin]
}

run "an_unknown_right" {
  command = plan

  variables {
    access_entries = { team = { principal_arn = "arn:aws:iam::123456789012:role/team", policy = "owner" } }
  }

  expect_failures = [var.access_entries]
}

run "an_account_is_not_a_principal" {
  command = plan

  variables {
    access_entries = { team = { principal_arn = "123456789012" } }
  }

  expect_failures = [var.access_entries]
}

run "an_alias_is_not_a_key" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:alias/secrets"
  }

  expect_failures = [var.kms_key_arn]
}

run "days_that_cloudwatch_does_not_know" {
  command = plan

  variables {
    log_retention_days = 10
  }

  expect_failures = [var.log_retention_days]
}

run "an_unknown_add_on" {
  command = plan

  variables {
    addon_versions = { ebs-csi = "v1" }
  }

  expect_failures = [var.addon_versions]
}

run "a_network_that_would_be_ignored" {
  command = plan

  variables {
    vpc_id = "vpc-0123456789abcdef0"
  }

  expect_failures = [var.vpc_id]
}

run "a_network_of_yours_without_its_name" {
  command = plan

  variables {
    create_network     = false
    private_subnet_ids = ["subnet-0000000000000000a", "subnet-0000000000000000b"]
  }

  expect_failures = [var.vpc_id]
}

run "one_subnet_is_too_few" {
  command = plan

  variables {
    create_network     = false
    vpc_id             = "vpc-0123456789abcdef0"
    private_subnet_ids = ["subnet-0000000000000000a"]
  }

  expect_failures = [var.vpc_id]
}

run "a_subnet_named_twice" {
  command = plan

  variables {
    create_network     = false
    vpc_id             = "vpc-0123456789abcdef0"
    private_subnet_ids = ["subnet-0000000000000000a", "subnet-0000000000000000a"]
  }

  expect_failures = [var.private_subnet_ids]
}

run "a_vpc_without_room" {
  command = plan

  variables {
    vpc_cidr = "10.0.0.0/24"
  }

  expect_failures = [var.vpc_cidr]
}

run "public_addresses_for_services" {
  command = plan

  variables {
    services_cidr = "8.8.0.0/16"
  }

  expect_failures = [var.services_cidr]
}

run "a_zone_of_another_region" {
  command = plan

  variables {
    availability_zones = ["us-east-1a", "eu-central-1b"]
  }

  expect_failures = [var.availability_zones]
}

run "one_zone_is_too_few" {
  command = plan

  variables {
    availability_zones = ["eu-central-1a"]
  }

  expect_failures = [var.availability_zones]
}

run "zones_of_a_network_that_is_not_made" {
  command = plan

  variables {
    create_network     = false
    vpc_id             = "vpc-0123456789abcdef0"
    private_subnet_ids = ["subnet-0000000000000000a", "subnet-0000000000000000b"]
    availability_zones = ["eu-central-1a", "eu-central-1b"]
  }

  expect_failures = [var.availability_zones]
}

run "an_unknown_way_out" {
  command = plan

  variables {
    nat_gateways = "all"
  }

  expect_failures = [var.nat_gateways]
}

run "no_way_out_and_no_endpoints" {
  command = plan

  variables {
    nat_gateways        = "none"
    interface_endpoints = ["ecr.api", "ecr.dkr"]
  }

  expect_failures = [var.interface_endpoints]
}

run "an_unknown_endpoint" {
  command = plan

  variables {
    interface_endpoints = ["ecr"]
  }

  expect_failures = [var.interface_endpoints]
}

run "graviton_machines" {
  command = plan

  variables {
    cpu_node_pool = { machine_type = "m7g.xlarge" }
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

run "a_disk_without_room_for_the_system" {
  command = plan

  variables {
    cpu_node_pool = { disk_size_gb = 10 }
  }

  expect_failures = [var.cpu_node_pool]
}

run "a_pool_name_that_labels_do_not_take" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "L4_pool", machine_type = "g6.xlarge", max_node_count = 4 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "two_pools_of_one_name" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4 }, { name = "l4-pool", machine_type = "g6.2xlarge", max_node_count = 4 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "a_maximum_below_the_minimum" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4, min_node_count = 5 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "machines_that_the_module_does_not_know" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "h100-pool", machine_type = "p5e.48xlarge", max_node_count = 1 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "a_gpu_that_the_machine_has_not" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4, gpu_type = "nvidia-tesla-a100" }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "a_number_of_gpus_that_the_machine_has_not" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4, gpu_count = 4 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "drives_that_the_module_does_not_know" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "a10g-pool", machine_type = "g5.xlarge", gpu_type = "nvidia-a10g", gpu_count = 1, max_node_count = 1, local_ssd = true }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "a_gpu_disk_without_room_for_the_driver" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4, disk_size_gb = 20 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "a_slow_kind_of_disk" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4, disk_type = "st1" }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "a_pool_in_another_region" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4, zones = ["us-east-1a"] }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "an_effect_that_eks_does_not_know" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4, taints = [{ key = "a", value = "b", effect = "NoSchedule" }] }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "a_label_that_others_set" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4, labels = { "node.kubernetes.io/instance-type" = "g6.xlarge" } }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "reserved_spot" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4, spot = true, capacity_reservation_id = "cr-0123456789abcdef0" }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "a_warm_machine_of_karpenter" {
  command = plan

  variables {
    enable_node_auto_provisioning = true
    gpu_node_pools                = [{ name = "l4-pool", machine_type = "g6.xlarge", max_node_count = 4, min_node_count = 1 }]
  }

  expect_failures = [var.gpu_node_pools]
}

run "a_namespace_that_kubernetes_refuses" {
  command = plan

  variables {
    sie_namespace = "SIE"
  }

  expect_failures = [var.sie_namespace]
}

run "an_account_that_kubernetes_refuses" {
  command = plan

  variables {
    sie_service_account_name = "sie_server"
  }

  expect_failures = [var.sie_service_account_name]
}

run "nothing_to_go_back_to" {
  command = plan

  variables {
    registry_keep_images = 1
  }

  expect_failures = [var.registry_keep_images]
}

run "a_registry_that_asks_who_you_are" {
  command = plan

  variables {
    pull_through_registries = { github = { upstream = "ghcr.io" } }
  }

  expect_failures = [var.pull_through_registries]
}

run "a_long_name_of_a_registry" {
  command = plan

  variables {
    pull_through_registries = { kubernetes = { upstream = "registry.k8s.io" } }
  }

  expect_failures = [var.pull_through_registries]
}

run "a_bucket_that_would_be_ignored" {
  command = plan

  variables {
    model_cache_bucket = "my-models"
  }

  expect_failures = [var.create_model_cache]
}

run "a_url_is_not_a_bucket" {
  command = plan

  variables {
    create_model_cache = false
    model_cache_bucket = "s3://my-models/models"
  }

  expect_failures = [var.model_cache_bucket]
}

run "half_a_day" {
  command = plan

  variables {
    model_cache_expiration_days = 0.5
  }

  expect_failures = [var.model_cache_expiration_days]
}

run "annotations_that_nobody_reads" {
  command = plan

  variables {
    ingress_nginx_service_annotations = { a = "b" }
  }

  expect_failures = [var.ingress_nginx_service_annotations]
}

run "a_certificate_without_a_site" {
  command = plan

  variables {
    sie_ingress_enabled     = true
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

run "an_unknown_mode_of_tokens" {
  command = plan

  variables {
    sie_router_auth_mode = "jwt"
  }

  expect_failures = [var.sie_router_auth_mode]
}

run "tokens_without_their_secret" {
  command = plan

  variables {
    sie_router_auth_mode = "static"
  }

  expect_failures = [var.sie_router_auth_secret_name]
}

run "a_chart_that_is_not_installed" {
  command = plan

  variables {
    chart_versions = { keda = "2.19.0" }
  }

  expect_failures = [var.chart_versions]
}

run "a_provider_of_another_region" {
  command = plan

  variables {
    region = "us-east-1"
  }

  expect_failures = [aws_vpc.this]
}

run "machines_that_the_region_has_not" {
  command = plan

  variables {
    gpu_node_pools = [{ name = "a100-pool", machine_type = "p4d.24xlarge", max_node_count = 1 }]
  }

  override_data {
    target = data.aws_ec2_instance_type_offerings.gpu
    values = {
      locations = []
    }
  }

  expect_failures = [aws_eks_node_group.gpu]
}

run "machines_that_karpenter_would_look_for_in_vain" {
  command = plan

  variables {
    enable_node_auto_provisioning = true
    install_node_autoscaling      = true
  }

  override_data {
    target = data.aws_ec2_instance_type_offerings.gpu
    values = {
      locations = []
    }
  }

  expect_failures = [helm_release.karpenter_pools]
}
