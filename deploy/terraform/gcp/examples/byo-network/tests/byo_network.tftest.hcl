mock_provider "google" {
  source          = "../../tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  project_id          = "my-project"
  network             = "projects/host/global/networks/shared"
  subnetwork          = "projects/host/regions/us-central1/subnetworks/machines"
  pods_range_name     = "gke-pods"
  services_range_name = "gke-services"
}

run "the_named_subnetwork_is_used" {
  command = plan

  assert {
    condition     = output.subnetwork_name == "projects/host/regions/us-central1/subnetworks/machines" && output.workload_identity_sa == "sie-byo-workload@my-project.iam.gserviceaccount.com"
    error_message = "The named subnetwork was expected: ${output.subnetwork_name}"
  }
}
