# Both processes; the script's end is the end of both.
"$bin/gunicorn" --bind "unix:$work/gunicorn.sock" --workers $workers --threads 4 \
  --worker-class gthread --keep-alive 75 --log-level warning app:app &
nginx -p "$work" -c "$work/nginx.conf" &
trap 'kill %1 %2; wait' TERM INT
wait
