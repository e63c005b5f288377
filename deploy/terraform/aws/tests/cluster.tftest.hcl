# The cluster itself: who reaches it, what is encrypted, which add-ons it has. Run without an account (mock_provider).

mock_provider "aws" {
  source = "./tests/aws"
}

variables {
  region = "eu-central-1"
}

run "the_api_is_private_unless_asked" {
  command = plan

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_private_access && !aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "the API has a public address though nobody asked"
  }
}
