# The cluster: who reaches it, what is encrypted, what it is made of. Every run plans against the schemas of the
# providers, with answers made up (tests/mocks), and so needs no account.

mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  region = "eu-central-1"
}

run "the_api_has_a_private_address_only" {
  command = plan

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_private_access && !aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "the API is public though nobody asked"
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.private_api) == 0
    error_message = "networks outside the VPC reach the API though nobody asked"
  }
}

run "a_public_api_is_open_to_the_named_networks_alone" {
  command = plan

  variables {
    authorized_networks = [{ cidr_block = "203.0.113.7/32", display_name = "office" }, { cidr_block = "198.51.100.0/24" }]
  }

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_public_access && aws_eks_cluster.this.vpc_config[0].endpoint_private_access
    error_message = "the API is not reachable from the named networks, or not from the machines"
  }
  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].public_access_cidrs == toset(["203.0.113.7/32", "198.51.100.0/24"])
    error_message = "the API is open to others than the named networks"
  }
}

run "networks_beside_the_vpc_reach_the_private_api" {
  command = plan

  variables {
    private_networks = ["192.168.0.0/16"]
  }

  assert {
    condition = (
      aws_vpc_security_group_ingress_rule.private_api["192.168.0.0/16"].cidr_ipv4 == "192.168.0.0/16"
      && aws_vpc_security_group_ingress_rule.private_api["192.168.0.0/16"].from_port == 443
      && aws_vpc_security_group_ingress_rule.private_api["192.168.0.0/16"].to_port == 443
    )
    error_message = "the rule is not for https from that network"
  }
}

run "secrets_and_logs_are_encrypted_with_a_rotated_key" {
  command = plan

  assert {
    condition     = aws_kms_key.this[0].enable_key_rotation && aws_eks_cluster.this.encryption_config[0].resources == toset(["secrets"])
    error_message = "secrets are not encrypted with a key that rotates"
  }
  assert {
    condition     = aws_cloudwatch_log_group.cluster[0].name == "/aws/eks/sie-cluster/cluster" && aws_cloudwatch_log_group.cluster[0].retention_in_days == 90
    error_message = "logs go to a group that EKS makes, which keeps them for ever"
  }
  assert {
    condition     = aws_eks_cluster.this.enabled_cluster_log_types == toset(["api", "audit", "authenticator", "controllerManager", "scheduler"])
    error_message = "some logs of the control plane are off"
  }
}

run "a_key_of_yours_is_used_and_none_made" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  }

  assert {
    condition     = length(aws_kms_key.this) == 0 && aws_eks_cluster.this.encryption_config[0].provider[0].key_arn == var.kms_key_arn
    error_message = "secrets are not encrypted with that key"
  }
}

run "logging_can_be_off" {
  command = plan

  variables {
    enable_cloud_logging = false
    enable_flow_logs     = false
  }

  assert {
    condition     = length(aws_cloudwatch_log_group.cluster) == 0 && length(aws_eks_cluster.this.enabled_cluster_log_types) == 0 && length(aws_flow_log.this) == 0
    error_message = "something is logged though logging is off"
  }
}

run "the_version_is_yours_or_the_newest" {
  command = plan

  assert {
    condition     = aws_eks_cluster.this.upgrade_policy[0].support_type == "STANDARD"
    error_message = "the cluster would go into extended support, which costs six times as much"
  }
}

run "a_version_is_passed_on" {
  command = plan

  variables {
    kubernetes_version = "1.33"
  }

  assert {
    condition     = aws_eks_cluster.this.version == "1.33"
    error_message = "the version is ${aws_eks_cluster.this.version}"
  }
}

run "add_ons_enforce_network_policies_and_give_volumes" {
  command = plan

  assert {
    condition     = setunion(keys(aws_eks_addon.before_nodes), keys(aws_eks_addon.after_nodes)) == toset(["vpc-cni", "eks-pod-identity-agent", "kube-proxy", "coredns", "aws-ebs-csi-driver"])
    error_message = "add-ons are missing, or there are others"
  }
  assert {
    condition     = jsondecode(aws_eks_addon.before_nodes["vpc-cni"].configuration_values).enableNetworkPolicy == "true"
    error_message = "the chart's NetworkPolicies would be without effect"
  }
  assert {
    condition     = jsondecode(aws_eks_addon.after_nodes["aws-ebs-csi-driver"].configuration_values).defaultStorageClass.enabled
    error_message = "volume claims without a class would wait for ever"
  }
  assert {
    condition     = aws_eks_cluster.this.bootstrap_self_managed_addons == false
    error_message = "EKS would install add-ons that nobody upgrades"
  }
}

run "add_ons_can_be_pinned" {
  command = plan

  variables {
    addon_versions = { vpc-cni = "v1.20.4-eksbuild.1" }
  }

  assert {
    condition     = aws_eks_addon.before_nodes["vpc-cni"].addon_version == "v1.20.4-eksbuild.1"
    error_message = "the version of the add-on is not the one asked for"
  }
}

run "whoever_makes_the_cluster_is_its_administrator" {
  command = plan

  assert {
    condition     = aws_eks_cluster.this.access_config[0].bootstrap_cluster_creator_admin_permissions && aws_eks_cluster.this.access_config[0].authentication_mode == "API"
    error_message = "nobody could use the cluster, or rights would come from a ConfigMap"
  }
}

run "others_have_the_rights_that_were_given" {
  command = plan

  variables {
    cluster_creator_admin = false
    access_entries = {
      platform = { principal_arn = "arn:aws:iam::123456789012:role/platform", policy = "admin" }
      team     = { principal_arn = "arn:aws:iam::123456789012:role/team", policy = "edit", namespaces = ["sie"] }
      lead     = { principal_arn = "arn:aws:iam::123456789012:user/lead", policy = "admin", namespaces = ["sie"] }
    }
  }

  assert {
    condition     = !aws_eks_cluster.this.access_config[0].bootstrap_cluster_creator_admin_permissions
    error_message = "whoever runs Terraform is an administrator though that is off"
  }
  assert {
    condition     = endswith(aws_eks_access_policy_association.this["platform"].policy_arn, "/AmazonEKSClusterAdminPolicy") && aws_eks_access_policy_association.this["platform"].access_scope[0].type == "cluster"
    error_message = "platform is not the cluster's administrator"
  }
  assert {
    condition     = endswith(aws_eks_access_policy_association.this["team"].policy_arn, "/AmazonEKSEditPolicy") && aws_eks_access_policy_association.this["team"].access_scope[0].namespaces == toset(["sie"])
    error_message = "team may not edit its namespace, or may edit others"
  }
  assert {
    condition     = endswith(aws_eks_access_policy_association.this["lead"].policy_arn, "/AmazonEKSAdminPolicy") && aws_eks_access_policy_association.this["lead"].access_scope[0].type == "namespace"
    error_message = "an administrator of a namespace is one of the cluster"
  }
}

run "outputs_lead_to_the_cluster" {
  command = plan

  variables {
    cluster_name = "sie-prod"
  }

  assert {
    condition     = output.kubectl_command == "aws eks update-kubeconfig --region eu-central-1 --name sie-prod"
    error_message = "kubectl_command is ${output.kubectl_command}"
  }
  assert {
    condition     = output.cluster_name == "sie-prod" && output.region == "eu-central-1"
    error_message = "cluster_name or region is wrong"
  }
}
