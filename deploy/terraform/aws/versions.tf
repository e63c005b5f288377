terraform {
  required_version = ">= 1.9" # validations that look at other variables

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0" # tested with 5.100; nothing here was removed in 6
    }
    helm = { # asked for nothing unless an install_ variable is true
      source  = "hashicorp/helm"
      version = ">= 3.1, < 4.0"
    }
  }
}
