locals {
  model_cache_bucket = var.create_model_cache ? google_storage_bucket.models[0].name : var.model_cache_bucket
  has_model_cache    = var.create_model_cache || var.model_cache_bucket != null
  model_cache_url    = local.model_cache_bucket == null ? null : "gs://${local.model_cache_bucket}/models"
  # Without Workload Identity a pod is its machine.
  workload_member = var.enable_workload_identity ? google_service_account.workload[0].member : google_service_account.nodes.member
}

resource "google_storage_bucket" "models" {
  # checkov:skip=CKV_GCP_62:Logs of access to public models would cost more than they tell; audit logs of the project say who changed them
  # checkov:skip=CKV_GCP_78:A cache: what is lost is fetched again. model_cache_versioning_enabled keeps versions
  count = var.create_model_cache ? 1 : 0

  project                     = var.project_id
  name                        = "${var.project_id}-${var.cluster_name}-models"
  location                    = coalesce(var.model_cache_location, var.region)
  storage_class               = "STANDARD"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.deletion_protection
  labels                      = var.labels

  versioning {
    enabled = var.model_cache_versioning_enabled
  }

  soft_delete_policy {
    retention_duration_seconds = 0 # a model can be fetched again; deleted ones would bill for a week
  }

  dynamic "encryption" {
    for_each = var.model_cache_kms_key_name == null ? [] : [1]
    content {
      default_kms_key_name = var.model_cache_kms_key_name
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }

  dynamic "lifecycle_rule" {
    for_each = var.model_cache_versioning_enabled ? [1] : []
    content {
      action {
        type = "Delete"
      }
      condition {
        days_since_noncurrent_time = 30
      }
    }
  }

  dynamic "lifecycle_rule" {
    for_each = var.model_cache_expiration_days > 0 ? [1] : []
    content {
      action {
        type = "Delete"
      }
      condition {
        age = var.model_cache_expiration_days
      }
    }
  }

  depends_on = [google_project_service.required]
}

# On the whole bucket, without a condition on names: the cache lists objects, and a list has no object's name to match.
resource "google_storage_bucket_iam_member" "workload" {
  count = local.has_model_cache ? 1 : 0

  bucket = local.model_cache_bucket
  role   = var.model_cache_write ? "roles/storage.objectUser" : "roles/storage.objectViewer"
  member = local.workload_member
}
