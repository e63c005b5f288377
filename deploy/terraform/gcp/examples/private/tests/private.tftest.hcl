mock_provider "google" {
  source          = "../../tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  project_id        = "my-project"
  corporate_network = "192.168.0.0/16"
  kms_key_name      = "projects/keys/locations/us-central1/keyRings/r/cryptoKeys/k"
  host              = "sie.example.com"
}

run "everything_is_inside" {
  command = plan

  assert {
    condition     = endswith(output.kubectl_command, "--internal-ip")
    error_message = "The API must be private: ${output.kubectl_command}"
  }

  assert {
    condition     = yamldecode(module.sie_gke.helm_values).ingress.host == "sie.example.com" && yamldecode(module.sie_gke.helm_values).router.auth.mode == "static"
    error_message = "The site with tokens was expected."
  }
}
