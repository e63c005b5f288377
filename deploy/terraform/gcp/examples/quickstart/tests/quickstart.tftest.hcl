mock_provider "google" {
  source          = "../../tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  project_id = "my-project"
}

run "the_outputs_that_the_commands_use" {
  command = plan

  assert {
    condition     = output.kubectl_command == "gcloud container clusters get-credentials sie-quickstart --region us-central1 --project my-project --dns-endpoint"
    error_message = "kubectl must work from a laptop: ${output.kubectl_command}"
  }

  assert {
    condition     = output.workload_identity_sa == "sie-quickstart-workload@my-project.iam.gserviceaccount.com"
    error_message = "The e-mail alone was expected: ${output.workload_identity_sa}"
  }

  assert {
    condition     = output.artifact_registry_url == "us-central1-docker.pkg.dev/my-project/sie-quickstart-images" && output.model_cache_url == "gs://my-project-sie-quickstart-models/models"
    error_message = "The repository and the bucket were expected."
  }
}

run "one_pool_of_l4_spot_machines_from_zero" {
  command = plan

  assert {
    condition     = module.sie_gke.gpu_node_pools["l4-spot"].machine_type == "g2-standard-8" && module.sie_gke.gpu_node_pools["l4-spot"].spot && module.sie_gke.gpu_node_pools["l4-spot"].min_node_count == 0
    error_message = "L4 spot machines from zero were expected."
  }

  assert {
    condition     = yamldecode(output.helm_values).workers.pools.l4.maxReplicas == 5 && yamldecode(output.helm_values).workers.pools.l4.spot
    error_message = "The chart must start as many workers as there may be machines."
  }
}

run "another_region" {
  command = plan

  variables {
    region = "europe-west4"
  }

  assert {
    condition     = strcontains(output.kubectl_command, "--region europe-west4 ") && startswith(output.artifact_registry_url, "europe-west4-docker.pkg.dev/")
    error_message = "Everything must follow the region: ${output.kubectl_command}"
  }
}
