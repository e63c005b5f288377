mock_provider "aws" {
  source          = "../../tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  region            = "eu-central-1"
  corporate_network = "192.168.0.0/16"
  kms_key_arn       = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  host              = "sie.example.com"
}

run "the_site_asks_for_tokens_behind_a_private_address" {
  command = plan

  assert {
    condition     = output.kubectl_command == "aws eks update-kubeconfig --region eu-central-1 --name sie-private" && output.pull_through_urls["quay"] == "123456789012.dkr.ecr.eu-central-1.amazonaws.com/sie-private/quay"
    error_message = "the outputs lead elsewhere"
  }
  assert {
    condition     = yamldecode(module.sie_eks.helm_values).router.auth.mode == "static" && yamldecode(module.sie_eks.helm_values).ingress.host == "sie.example.com" && yamldecode(module.sie_eks.helm_values).ingress.tls.enabled
    error_message = "the site is open, or has no certificate"
  }
}
