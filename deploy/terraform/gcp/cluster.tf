locals {
  apis = ["artifactregistry", "cloudresourcemanager", "compute", "container", "iam", "logging", "monitoring", "storage"]
}

resource "google_project_service" "required" {
  for_each = var.enable_apis ? toset(local.apis) : toset([])

  project            = var.project_id
  service            = "${each.value}.googleapis.com"
  disable_on_destroy = false # others may use them
}

resource "google_container_cluster" "this" {
  # checkov:skip=CKV_GCP_12:Dataplane V2 enforces network policies; the addon is for clusters without it
  # checkov:skip=CKV_GCP_65:Needs a Google group of your domain; set rbac_security_group to it
  # checkov:skip=CKV_GCP_66:Binary Authorization needs attestors and a policy of your organisation, for images that you sign
  # checkov:skip=CKV_GCP_69:The default pool is removed; each of node_pools.tf has the GKE metadata server
  project  = var.project_id
  name     = var.cluster_name
  location = var.region

  min_master_version       = var.kubernetes_version
  deletion_protection      = var.deletion_protection
  resource_labels          = var.labels
  initial_node_count       = 1 # of the default pool, which goes at once: pools below have their own life
  remove_default_node_pool = true

  network                     = local.network
  subnetwork                  = local.subnetwork
  networking_mode             = "VPC_NATIVE"
  datapath_provider           = "ADVANCED_DATAPATH" # Dataplane V2: the chart's network policies are enforced
  enable_shielded_nodes       = true
  enable_intranode_visibility = true
  enable_l4_ilb_subsetting    = true # internal load balancers beyond 250 machines

  release_channel {
    channel = var.release_channel
  }

  ip_allocation_policy {
    cluster_secondary_range_name  = var.pods_range_name
    services_secondary_range_name = var.services_range_name
  }

  private_cluster_config {
    enable_private_nodes    = var.enable_private_nodes
    enable_private_endpoint = length(var.authorized_networks) == 0
    master_ipv4_cidr_block  = var.master_ipv4_cidr_block

    master_global_access_config {
      enabled = false
    }
  }

  master_authorized_networks_config {
    gcp_public_cidrs_access_enabled = false

    dynamic "cidr_blocks" {
      for_each = concat(
        var.authorized_networks,
        [for cidr in var.private_networks : { cidr_block = cidr, display_name = "private" }],
      )
      content {
        cidr_block   = cidr_blocks.value.cidr_block
        display_name = cidr_blocks.value.display_name
      }
    }
  }

  control_plane_endpoints_config {
    dns_endpoint_config {
      allow_external_traffic = var.enable_dns_endpoint
    }
  }

  master_auth {
    client_certificate_config {
      issue_client_certificate = false
    }
  }

  dynamic "authenticator_groups_config" {
    for_each = var.rbac_security_group == null ? [] : [1]
    content {
      security_group = var.rbac_security_group
    }
  }

  dynamic "workload_identity_config" {
    for_each = var.enable_workload_identity ? [1] : []
    content {
      workload_pool = local.workload_pool
    }
  }

  cluster_autoscaling {
    enabled             = var.enable_node_auto_provisioning
    autoscaling_profile = "OPTIMIZE_UTILIZATION" # machines that nobody needs go after minutes, not ten

    dynamic "resource_limits" {
      for_each = var.enable_node_auto_provisioning ? merge(
        { cpu = var.node_auto_provisioning_limits.cpu, memory = var.node_auto_provisioning_limits.memory_gb },
        var.node_auto_provisioning_limits.gpus,
      ) : {}
      content {
        resource_type = resource_limits.key
        minimum       = 0
        maximum       = resource_limits.value
      }
    }

    dynamic "auto_provisioning_defaults" {
      for_each = var.enable_node_auto_provisioning ? [1] : []
      content {
        service_account   = google_service_account.nodes.email
        oauth_scopes      = local.node_scopes
        disk_size         = 400
        disk_type         = "pd-balanced"
        boot_disk_kms_key = var.disk_kms_key_name

        shielded_instance_config {
          enable_secure_boot          = true
          enable_integrity_monitoring = true
        }

        management {
          auto_repair  = true
          auto_upgrade = true
        }
      }
    }
  }

  addons_config {
    http_load_balancing {
      disabled = false
    }
    horizontal_pod_autoscaling {
      disabled = false
    }
    dns_cache_config {
      enabled = true
    }
    gce_persistent_disk_csi_driver_config {
      enabled = true
    }
    gcs_fuse_csi_driver_config {
      enabled = true
    }
  }

  gateway_api_config {
    channel = "CHANNEL_STANDARD"
  }

  logging_config {
    enable_components = var.enable_cloud_logging ? ["SYSTEM_COMPONENTS", "WORKLOADS"] : []
  }

  # Said either way: GKE turns managed Prometheus on where nothing is said.
  monitoring_config {
    enable_components = ["SYSTEM_COMPONENTS"]

    managed_prometheus {
      enabled = var.enable_managed_prometheus
    }
  }

  dynamic "database_encryption" {
    for_each = var.kms_key_name == null ? [] : [1]
    content {
      state    = "ENCRYPTED"
      key_name = var.kms_key_name
    }
  }

  security_posture_config {
    mode               = "BASIC"
    vulnerability_mode = "VULNERABILITY_DISABLED" # bills for each image; turn it on in the registry if you want it
  }

  cost_management_config {
    enabled = true
  }

  # Of the default pool, for the minutes that it lives: not every project has the account that it takes by itself.
  node_config {
    service_account   = google_service_account.nodes.email
    oauth_scopes      = local.node_scopes
    metadata          = local.metadata
    boot_disk_kms_key = var.disk_kms_key_name

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = var.enable_workload_identity ? "GKE_METADATA" : "GCE_METADATA"
    }
  }

  node_pool_defaults {
    node_config_defaults {
      insecure_kubelet_readonly_port_enabled = "FALSE"

      gcfs_config {
        enabled = true # images of Artifact Registry start while they are still read
      }
    }
  }

  dynamic "maintenance_policy" {
    for_each = var.maintenance_window == null ? [] : [var.maintenance_window]
    content {
      recurring_window {
        start_time = maintenance_policy.value.start_time
        end_time   = maintenance_policy.value.end_time
        recurrence = maintenance_policy.value.recurrence
      }
    }
  }

  timeouts {
    create = "60m"
    update = "60m"
    delete = "60m"
  }

  lifecycle {
    ignore_changes = [initial_node_count, node_config] # of the pool that is gone
  }

  depends_on = [google_project_service.required, google_project_iam_member.nodes, google_service_account_iam_member.deployer]
}
