locals {
  workload_pool  = "${var.project_id}.svc.id.goog"
  workload_email = "${var.cluster_name}-workload@${var.project_id}.iam.gserviceaccount.com" # known before it is made
}

# The machines' account: logs, metrics, and reading our registries. Nothing of it is a pod's, with Workload Identity.
resource "google_service_account" "nodes" {
  project      = var.project_id
  account_id   = "${var.cluster_name}-nodes"
  display_name = "Machines of ${var.cluster_name}"

  depends_on = [google_project_service.required]
}

resource "google_project_iam_member" "nodes" {
  project = var.project_id
  role    = "roles/container.defaultNodeServiceAccount" # GKE's own least set
  member  = google_service_account.nodes.member
}

# GKE makes machines on behalf of whoever runs Terraform.
resource "google_service_account_iam_member" "deployer" {
  count = var.deployer_service_account == "" ? 0 : 1

  service_account_id = google_service_account.nodes.name
  role               = "roles/iam.serviceAccountUser"
  member             = "serviceAccount:${var.deployer_service_account}"
}

# The workers' account.
resource "google_service_account" "workload" {
  count = var.enable_workload_identity ? 1 : 0

  project      = var.project_id
  account_id   = "${var.cluster_name}-workload"
  display_name = "Workers of ${var.cluster_name}"

  depends_on = [google_project_service.required]
}

resource "google_service_account_iam_member" "workload" {
  count = var.enable_workload_identity ? 1 : 0

  service_account_id = google_service_account.workload[0].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${local.workload_pool}[${var.sie_namespace}/${var.sie_service_account_name}]"

  depends_on = [google_container_cluster.this] # the first cluster of a project makes the pool
}
