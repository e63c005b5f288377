locals {
  node_scopes = ["https://www.googleapis.com/auth/cloud-platform"] # what a machine may do is its account's roles
  metadata    = { disable-legacy-endpoints = "true" }
}

resource "google_container_node_pool" "cpu" {
  project        = var.project_id
  location       = var.region
  cluster        = google_container_cluster.this.id
  name           = "cpu-pool"
  node_locations = length(var.cpu_node_pool.zones) > 0 ? sort(var.cpu_node_pool.zones) : null

  initial_node_count = 1 # in each zone, at first; then the autoscaler keeps to the totals

  autoscaling {
    total_min_node_count = var.cpu_node_pool.min_node_count
    total_max_node_count = var.cpu_node_pool.max_node_count
    location_policy      = var.cpu_node_pool.spot ? "ANY" : "BALANCED"
  }

  node_config {
    machine_type      = var.cpu_node_pool.machine_type
    image_type        = "COS_CONTAINERD"
    disk_size_gb      = var.cpu_node_pool.disk_size_gb
    disk_type         = var.cpu_node_pool.disk_type
    boot_disk_kms_key = var.disk_kms_key_name
    spot              = var.cpu_node_pool.spot
    service_account   = google_service_account.nodes.email
    oauth_scopes      = local.node_scopes
    metadata          = local.metadata
    labels            = { "node-type" = "cpu" }
    resource_labels   = var.labels

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = var.enable_workload_identity ? "GKE_METADATA" : "GCE_METADATA"
    }

    kubelet_config {
      insecure_kubelet_readonly_port_enabled = "FALSE"
    }

    gcfs_config {
      enabled = true
    }
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  upgrade_settings {
    max_surge       = 1
    max_unavailable = 0
  }

  lifecycle {
    ignore_changes = [initial_node_count]
  }
}

resource "google_container_node_pool" "gpu" {
  for_each = local.pools

  project        = var.project_id
  location       = var.region
  cluster        = google_container_cluster.this.id
  name           = each.key
  node_locations = each.value.zones

  initial_node_count = 0 # the autoscaler makes the first machine too

  autoscaling {
    total_min_node_count = each.value.min_node_count
    total_max_node_count = each.value.max_node_count
    location_policy      = "ANY" # where there are GPUs
  }

  dynamic "placement_policy" {
    for_each = each.value.compact_placement ? [1] : []
    content {
      type = "COMPACT"
    }
  }

  node_config {
    machine_type      = each.value.machine_type
    image_type        = "COS_CONTAINERD"
    disk_size_gb      = each.value.disk_size_gb
    disk_type         = each.value.disk_type
    boot_disk_kms_key = var.disk_kms_key_name
    spot              = each.value.spot
    flex_start        = each.value.flex_start ? true : null
    service_account   = google_service_account.nodes.email
    oauth_scopes      = local.node_scopes
    metadata          = local.metadata
    labels            = each.value.labels
    resource_labels   = var.labels

    guest_accelerator {
      type  = each.value.gpu_type
      count = each.value.gpu_count

      gpu_driver_installation_config {
        gpu_driver_version = each.value.gpu_driver_version
      }
    }

    dynamic "ephemeral_storage_local_ssd_config" {
      for_each = each.value.drives > 0 ? [1] : []
      content {
        local_ssd_count = each.value.drives
      }
    }

    dynamic "secondary_boot_disks" {
      for_each = each.value.secondary_boot_disk_image == null ? [] : [1]
      content {
        disk_image = each.value.secondary_boot_disk_image
        mode       = "CONTAINER_IMAGE_CACHE"
      }
    }

    dynamic "reservation_affinity" {
      for_each = each.value.reservation == null ? [] : [1]
      content {
        consume_reservation_type = "SPECIFIC_RESERVATION"
        key                      = "compute.googleapis.com/reservation-name"
        values                   = [each.value.reservation]
      }
    }

    dynamic "taint" {
      for_each = each.value.taints
      content {
        key    = taint.value.key
        value  = taint.value.value
        effect = taint.value.effect
      }
    }

    gvnic {
      enabled = true
    }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = var.enable_workload_identity ? "GKE_METADATA" : "GCE_METADATA"
    }

    kubelet_config {
      insecure_kubelet_readonly_port_enabled = "FALSE"
    }

    gcfs_config {
      enabled = true
    }
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  upgrade_settings {
    max_surge       = each.value.max_surge
    max_unavailable = each.value.max_unavailable
  }

  lifecycle {
    ignore_changes = [initial_node_count]

    precondition {
      condition     = length(each.value.zones) > 0
      error_message = "No zone of ${var.region} offers a ${each.value.machine_type} for the pool ${each.key}. Choose another region or machine (`gcloud compute machine-types list --filter=name=${each.value.machine_type}`), or name zones if you know better."
    }
  }
}
