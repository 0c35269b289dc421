#!/usr/bin/env bash
# Make the files that docker-compose.yml takes its secrets from, where they are not there yet: a fresh password for each server of its own, and an empty file for
# each provider's key, to be filled by whoever has one.
#
#   deploy/secrets.sh        in deploy/secrets, or in the folder ENSEMBLE_SECRETS names
#
# The engine hands a file to a container as it is, and the users in there are not you. So the files can be read by anybody who gets at them, and the folder lets
# nobody else in.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${ENSEMBLE_SECRETS:-deploy/secrets}
umask 077
mkdir -p "$folder"
chmod 700 "$folder"
for name in redis_password grafana_password; do
  if [ ! -s "$folder/$name" ]; then
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$folder/$name"
    echo "$folder/$name: made"
  fi
done
for name in openrouter_api_key openai_api_key; do
  if [ ! -e "$folder/$name" ]; then
    : > "$folder/$name"
    echo "$folder/$name: made, empty; put the key in it if you have one"
  fi
done
chmod 444 "$folder"/redis_password "$folder"/grafana_password
chmod 644 "$folder"/openrouter_api_key "$folder"/openai_api_key
