#!/usr/bin/env bash
# The whole story with the AWS CLI alone: train, look, serve, ask, clean up.
#
#   story.sh FOLDER PICTURE      FOLDER has MNIST's four files, PICTURE is a PNG of one digit
#
# Nothing in it is special to the local endpoint. On SageMaker it needs ROLE, the ARN of an
# execution role; to run it on this machine, before it: eval "$(byoc local env)"
set -euo pipefail
folder=$1 picture=$2

name=${NAME:-digits}
account=$(aws sts get-caller-identity --query Account --output text)
region=${AWS_REGION:-$(aws configure get region)}
registry=$account.dkr.ecr.$region.amazonaws.com
role=${ROLE:-arn:aws:iam::$account:role/service-role/local}
bucket=${BUCKET:-sagemaker-$region-$account}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export AWS_PAGER= # the second CLI would show answers in a pager

say() { printf '\n== %s\n' "$*"; }

say "The data go to S3"
aws s3api head-bucket --bucket "$bucket" >"$work/bucket" 2>&1 || aws s3 mb "s3://$bucket"
aws s3 cp "$folder" "s3://$bucket/$name/data" --recursive --no-progress

say "A training job"
aws sagemaker create-training-job \
    --training-job-name "$name" \
    --role-arn "$role" \
    --algorithm-specification "TrainingImage=$registry/sagemaker-byoc-training:latest,TrainingInputMode=File" \
    --hyper-parameters epochs="${EPOCHS:-6}" \
    --input-data-config "ChannelName=training,DataSource={S3DataSource={S3DataType=S3Prefix,S3Uri=s3://$bucket/$name/data}}" \
    --output-data-config "S3OutputPath=s3://$bucket/$name/output" \
    --resource-config InstanceType=ml.m5.large,InstanceCount=1,VolumeSizeInGB=10 \
    --stopping-condition MaxRuntimeInSeconds=3600 \
    --tags Key=project,Value=digits
aws sagemaker wait training-job-completed-or-stopped --training-job-name "$name"
aws sagemaker describe-training-job --training-job-name "$name" --output table \
    --query '{Status: TrainingJobStatus, Seconds: TrainingTimeInSeconds, Model: ModelArtifacts.S3ModelArtifacts}'

say "What it said"
stream=$(aws logs describe-log-streams --log-group-name /aws/sagemaker/TrainingJobs \
    --log-stream-name-prefix "$name/algo-1" --query 'logStreams[0].logStreamName' --output text)
aws logs get-log-events --log-group-name /aws/sagemaker/TrainingJobs --log-stream-name "$stream" \
    --start-from-head --query 'events[].[message]' --output text | tail -n 5

say "Its tags"
read -r job model < <(aws sagemaker describe-training-job --training-job-name "$name" \
    --query '[TrainingJobArn, ModelArtifacts.S3ModelArtifacts]' --output text)
aws sagemaker add-tags --resource-arn "$job" --tags Key=stage,Value=trial --output text
aws sagemaker list-tags --resource-arn "$job" --query 'sort_by(Tags, &Key)' --output text

say "An endpoint"
aws sagemaker create-model \
    --model-name "$name" \
    --execution-role-arn "$role" \
    --primary-container "Image=$registry/sagemaker-byoc-inference:latest,ModelDataUrl=$model"
aws sagemaker create-endpoint-config \
    --endpoint-config-name "$name" \
    --production-variants "VariantName=all,ModelName=$name,InstanceType=ml.m5.large,InitialInstanceCount=1"
aws sagemaker create-endpoint --endpoint-name "$name" --endpoint-config-name "$name"
aws sagemaker wait endpoint-in-service --endpoint-name "$name"

say "All that there is by now, a page of one at a time"
for kind in training-jobs models endpoint-configs endpoints; do
    aws sagemaker "list-$kind" --page-size 1 --query '*[].[*]' --output text
done

say "A digit"
aws sagemaker-runtime invoke-endpoint \
    --endpoint-name "$name" \
    --content-type image/png --body "fileb://$picture" \
    --accept application/json "$work/answer"
# [[-11.2, -0.001, ...]]: how likely each digit is. One a line, numbered, the likeliest last:
read -r answer _ < <(tr -d '[] ' <"$work/answer" | tr , '\n' | nl -v 0 | sort -g -k 2 | tail -n 1)
echo "Most likely answer: $answer"

say "Nothing is left but the data, the model's archive and the job, which SageMaker keeps"
aws sagemaker delete-endpoint --endpoint-name "$name"
aws sagemaker wait endpoint-deleted --endpoint-name "$name"
aws sagemaker delete-endpoint-config --endpoint-config-name "$name"
aws sagemaker delete-model --model-name "$name"
aws sagemaker delete-tags --resource-arn "$job" --tag-keys stage
