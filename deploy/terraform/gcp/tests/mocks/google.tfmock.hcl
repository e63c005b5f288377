# What the mocked provider answers where a test does not say: three zones, each with every machine.

mock_data "google_compute_zones" {
  defaults = {
    names = ["us-central1-a", "us-central1-b", "us-central1-c"]
  }
}

mock_data "google_compute_machine_types" {
  defaults = {
    machine_types = [{
      name                             = "any"
      accelerators                     = []
      deprecated                       = []
      description                      = ""
      guest_cpus                       = 8
      is_shared_cpus                   = false
      maximum_persistent_disks         = 128
      maximum_persistent_disks_size_gb = 263168
      memory_mb                        = 32768
      self_link                        = ""
    }]
  }
}

mock_resource "google_service_account" {
  defaults = {
    email  = "account@my-project.iam.gserviceaccount.com"
    member = "serviceAccount:account@my-project.iam.gserviceaccount.com"
    name   = "projects/my-project/serviceAccounts/account@my-project.iam.gserviceaccount.com"
  }
}

mock_resource "google_compute_network" {
  defaults = { id = "projects/my-project/global/networks/made" }
}

mock_resource "google_compute_subnetwork" {
  defaults = { id = "projects/my-project/regions/us-central1/subnetworks/made" }
}
