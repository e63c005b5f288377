mock_provider "google" {
  source          = "../../tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  project_id = "my-project"
}

run "two_kinds_of_machines" {
  command = plan

  assert {
    condition     = { for name, pool in output.gpu_node_pools : name => [pool.machine_type, pool.gpu_type, pool.gpu_count, pool.spot, pool.min_node_count, pool.max_node_count] } == { l4-pool = ["g2-standard-8", "nvidia-l4", 1, false, 1, 20], a100-pool = ["a2-highgpu-1g", "nvidia-tesla-a100", 1, true, 0, 10] }
    error_message = "The page's two pools were expected: ${jsonencode(output.gpu_node_pools)}"
  }

  assert {
    condition     = alltrue([for pool in values(output.gpu_node_pools) : pool.taints[0].key == "nvidia.com/gpu" && pool.gpu_driver_version == "DEFAULT"])
    error_message = "Taints and drivers were expected."
  }
}

run "the_api_is_private_unless_asked" {
  command = plan

  assert {
    condition     = endswith(output.kubectl_command, "--internal-ip")
    error_message = "No public API was asked for: ${output.kubectl_command}"
  }
}

run "an_office_is_let_in" {
  command = plan

  variables {
    authorized_networks = [{ cidr_block = "203.0.113.0/24" }]
  }

  assert {
    condition     = endswith(output.kubectl_command, "--project my-project") && output.workload_identity_sa == "sie-prod-workload@my-project.iam.gserviceaccount.com"
    error_message = "The public address was asked for: ${output.kubectl_command}"
  }
}
