# Needs Terraform: OpenTofu does not override one instance of a data source.

mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  project_id = "my-project"
  region     = "us-central1"
}

run "pools_span_the_zones_that_offer_the_machine" {
  command = plan

  override_data {
    target = data.google_compute_zones.up
    values = { names = ["us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f"] }
  }

  override_data {
    target = data.google_compute_machine_types.offered["g2-standard-8/3"]
    values = { zone = "us-central1-f", machine_types = [] }
  }

  assert {
    condition     = google_container_node_pool.gpu["l4-pool"].node_locations == toset(["us-central1-a", "us-central1-b", "us-central1-c"])
    error_message = "Zones with the machine, and no other, were expected: ${jsonencode(google_container_node_pool.gpu["l4-pool"].node_locations)}"
  }
}
