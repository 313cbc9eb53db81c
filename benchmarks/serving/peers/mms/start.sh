mkdir -p "$work/logs" "$work/ml/model"
ln -sfn "$work/code" "$work/ml/model/code"
exec "$bin/multi-model-server" --start --foreground --model-store / --mms-config \
  "$work/mms.properties" --log-config "$work/log4j2.xml" --models "model=$work/ml/model"
