locals {
  registry_location = coalesce(var.artifact_registry_location, var.region)
  registry_host     = "${local.registry_location}-docker.pkg.dev"
  registries        = var.create_artifact_registry ? merge({ images = null }, var.pull_through_registries) : {}
  registry_urls     = { for name in keys(local.registries) : name => "${local.registry_host}/${var.project_id}/${var.cluster_name}-${name}" }
}

# `images` is ours to push to; the others copy a public registry on first use.
resource "google_artifact_registry_repository" "this" {
  for_each = local.registries

  project                = var.project_id
  location               = local.registry_location
  repository_id          = "${var.cluster_name}-${each.key}"
  format                 = "DOCKER"
  mode                   = each.value == null ? "STANDARD_REPOSITORY" : "REMOTE_REPOSITORY"
  description            = each.value == null ? "Images of SIE" : "Copies of ${each.value}"
  labels                 = var.labels
  kms_key_name           = var.registry_kms_key_name
  cleanup_policy_dry_run = false

  dynamic "docker_config" {
    for_each = each.value == null ? [1] : []
    content {
      immutable_tags = true # what runs is what was pushed
    }
  }

  dynamic "remote_repository_config" {
    for_each = each.value == null ? [] : [each.value]
    content {
      description = remote_repository_config.value

      common_repository {
        uri = remote_repository_config.value
      }
    }
  }

  # A deletion spares what a KEEP names, so the newest stay however old they are.
  cleanup_policies {
    id     = "keep-newest"
    action = "KEEP"

    most_recent_versions {
      keep_count = var.registry_keep_images
    }
  }

  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"

    condition {
      older_than = "2592000s" # 30 days
    }
  }

  vulnerability_scanning_config {
    enablement_config = "INHERITED" # what the project says; scanning bills for each image
  }

  depends_on = [google_project_service.required]
}

resource "google_artifact_registry_repository_iam_member" "nodes" {
  for_each = local.registries

  project    = var.project_id
  location   = google_artifact_registry_repository.this[each.key].location
  repository = google_artifact_registry_repository.this[each.key].repository_id
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.nodes.member
}
