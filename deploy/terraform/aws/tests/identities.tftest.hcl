mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "helm" {}

variables {
  region = "eu-central-1"
}

run "workers_have_a_role_that_no_other_pod_can_have" {
  command = plan

  assert {
    condition     = aws_eks_pod_identity_association.this["workload"].namespace == "sie" && aws_eks_pod_identity_association.this["workload"].service_account == "sie-server"
    error_message = "the chart's account has no role"
  }
  assert {
    condition = jsondecode(aws_iam_role.pod["workload"].assume_role_policy).Statement == [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = { StringEquals = {
        "aws:SourceAccount"                         = "123456789012"
        "aws:RequestTag/eks-cluster-name"           = "sie-cluster"
        "aws:RequestTag/kubernetes-namespace"       = "sie"
        "aws:RequestTag/kubernetes-service-account" = "sie-server"
      } }
    }]
    error_message = "others than the workers' account may have the role"
  }
}

run "the_account_can_have_another_name" {
  command = plan

  variables {
    sie_namespace            = "search"
    sie_service_account_name = "models"
  }

  assert {
    condition     = aws_eks_pod_identity_association.this["workload"].namespace == "search" && aws_eks_pod_identity_association.this["workload"].service_account == "models"
    error_message = "the role is bound to another account"
  }
  assert {
    condition     = yamldecode(output.helm_values).serviceAccount.name == "models"
    error_message = "the chart would make an account without the role"
  }
}

run "workers_may_read_models_and_nothing_else" {
  command = plan

  assert {
    condition = { for statement in jsondecode(aws_iam_role_policy.workload[0].policy).Statement : statement.Resource => statement.Action } == {
      "arn:aws:s3:::sie-cluster-123456789012-eu-central-1-models/models/*" = ["s3:GetObject"]
      "arn:aws:s3:::sie-cluster-123456789012-eu-central-1-models"          = ["s3:ListBucket"]
    }
    error_message = "workers may ${aws_iam_role_policy.workload[0].policy}"
  }
}

run "or_put_some_there_when_asked_to" {
  command = plan

  variables {
    model_cache_write       = true
    model_cache_kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  }

  assert {
    condition     = contains(jsondecode(aws_iam_role_policy.workload[0].policy).Statement[0].Action, "s3:PutObject") && !strcontains(aws_iam_role_policy.workload[0].policy, "Delete")
    error_message = "workers cannot put models there, or may delete them"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.workload[0].policy).Statement[2].Action == ["kms:Decrypt", "kms:GenerateDataKey"] && jsondecode(aws_iam_role_policy.workload[0].policy).Statement[2].Resource == var.model_cache_kms_key_arn
    error_message = "workers cannot use the bucket's key"
  }
}

run "without_workload_identity_nobody_has_the_role" {
  command = plan

  variables {
    enable_workload_identity = false
  }

  assert {
    condition     = !contains(keys(aws_iam_role.pod), "workload") && !contains(keys(aws_eks_pod_identity_association.this), "workload") && length(aws_iam_role_policy.workload) == 0
    error_message = "there is a role for workers"
  }
  assert {
    condition     = yamldecode(output.helm_values).workers.common.clusterCache.enabled == false && output.workload_identity_role_arn == null
    error_message = "workers would ask a bucket that refuses them"
  }
}

run "the_autoscaler_may_scale_this_clusters_groups_alone" {
  command = plan

  assert {
    condition     = aws_eks_pod_identity_association.this["cluster-autoscaler"].namespace == "kube-system" && aws_eks_pod_identity_association.this["cluster-autoscaler"].service_account == "cluster-autoscaler"
    error_message = "the autoscaler's account has no role"
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(aws_iam_role_policy.cluster_autoscaler[0].policy).Statement :
      alltrue([for action in flatten([statement.Action]) : can(regex(":(Describe|Get)", action))]) || try(statement.Condition.StringEquals["aws:ResourceTag/k8s.io/cluster-autoscaler/sie-cluster"] == "owned", false)
    ])
    error_message = "the autoscaler may change groups of others"
  }
}

run "machines_may_join_and_pull_images" {
  command = plan

  assert {
    condition     = toset([for attachment in aws_iam_role_policy_attachment.node : attachment.policy_arn]) == toset(["arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy", "arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryPullOnly"])
    error_message = "machines may do more, or less"
  }
  assert {
    condition     = alltrue([for resource in jsondecode(aws_iam_role_policy.node_pull_through[0].policy).Statement[0].Resource : startswith(resource, "arn:aws:ecr:eu-central-1:123456789012:repository/sie-cluster/")])
    error_message = "machines may make repositories of any name"
  }
}

run "add_ons_have_their_own_roles" {
  command = plan

  assert {
    condition     = one(aws_eks_addon.before_nodes["vpc-cni"].pod_identity_association).service_account == "aws-node" && one(aws_eks_addon.after_nodes["aws-ebs-csi-driver"].pod_identity_association).service_account == "ebs-csi-controller-sa"
    error_message = "an add-on would use the machine's role"
  }
}
