mkdir -p "$work/store" "$work/logs"
"$bin/torch-model-archiver" --model-name digits --version 1.0 --handler "$work/handler.py" \
  --extra-files "$work/digits.py,$work/model.py" --export-path "$work/store" --force
exec "$bin/torchserve" --foreground --disable-token-auth --ncs \
  --ts-config "$work/config.properties" --log-config "$work/log4j2.xml" \
  --model-store "$work/store" --models digits.mar
