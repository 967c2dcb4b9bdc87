#!/usr/bin/env bash
# A team's servers without containers: PostgreSQL, S3 and MLflow, as .env beside this file has them.
#
#   ./servers.sh settings          write .env, with a secret drawn for each
#   ./servers.sh up [NAME...]      start them (postgres, s3, mlflow), and wait until they answer
#   ./servers.sh down [NAME...]    end them
#   ./servers.sh status            which of them run
#   ./servers.sh member NAME       an account, or new passwords, for someone; prints what goes into their environment
#   ./servers.sh clean             what was deleted in MLflow goes for good, with its files and models
#   ./servers.sh run COMMAND...    a command that has the settings, as in `run psql`
#
# SETTINGS names another file than .env.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
settings=${SETTINGS:-$here/.env}

say() { echo "$*" >&2; }
fail() { say "$*"; exit 1; }

write_settings() {
    [ ! -e "$settings" ] || fail "$settings is there already; edit it, or move it away."
    umask 077
    while IFS= read -r line; do
        case $line in
            \#*) echo "$line" ;;
            *=) echo "$line$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')" ;;
            *) echo "$line" ;;
        esac
    done < "$here/.env.example" > "$settings.part"
    mv "$settings.part" "$settings"
    say "$settings is written; look at its hosts and folders, then ./servers.sh up."
}

read_settings() {
    [ -e "$settings" ] || fail "There is no $settings; ./servers.sh settings writes one."
    set -a
    . "$settings"
    set +a
    mkdir -p "$SERVERS_FOLDER/log"
}

answers() {
    case $1 in
        postgres) (echo > "/dev/tcp/$PGHOST/$PGPORT") ;;
        s3) grep -q '^S3 is ready' "$SERVERS_FOLDER/log/s3.log" ;;
        mlflow) curl --silent --fail "http://$MLFLOW_HOST:$MLFLOW_PORT/health" ;;
    esac > /dev/null 2>&1
}

pid_of() { cat "$SERVERS_FOLDER/$1.pid" 2> /dev/null; }
runs() { pid=$(pid_of "$1") && kill -0 -- "-$pid" 2> /dev/null; }

up() {
    if runs "$1"; then say "$1 runs already."; return; fi
    # A group of its own, so that all of its processes can be ended, and nobody else's.
    setsid "$here/run/$1" > "$SERVERS_FOLDER/log/$1.log" 2>&1 < /dev/null &
    pid=$!
    echo "$pid" > "$SERVERS_FOLDER/$1.pid"
    for _ in $(seq 600); do
        # Its group is there a moment later than itself.
        kill -0 "$pid" 2> /dev/null || break
        if answers "$1"; then say "$1 is up."; return; fi
        sleep 0.3
    done
    tail -n 5 "$SERVERS_FOLDER/log/$1.log" >&2
    down "$1"
    fail "$1 did not come up; its log is $SERVERS_FOLDER/log/$1.log."
}

down() {
    runs "$1" || { rm -f "$SERVERS_FOLDER/$1.pid"; return 0; }
    kill -- "-$(pid_of "$1")"
    for _ in $(seq 100); do runs "$1" || break; sleep 0.1; done
    ! runs "$1" || kill -9 -- "-$(pid_of "$1")"
    rm -f "$SERVERS_FOLDER/$1.pid"
    say "$1 is down."
}

# A key of their own to the DVC remote's bucket, which can be taken away alone.
member() {
    answers mlflow || fail "MLflow does not answer; ./servers.sh up starts it."
    python -W ignore "$here/run/member.py" "$1"
    if ! runs s3; then say "S3 does not run here: give $1 a key to the bucket $DVC_BUCKET where it does."; return; fi
    secret=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
    CEPH_CONF=$SERVERS_FOLDER/s3/ceph.conf radosgw-admin key create --uid "$DVC_ACCESS_KEY_ID" \
        --access-key "$1" --secret-key "$secret" > /dev/null
    echo "export AWS_ACCESS_KEY_ID=$1"
    echo "export AWS_SECRET_ACCESS_KEY=$secret"
}

command=${1:-}
shift || true
case $command in
    settings) write_settings ;;
    up) read_settings; [ $# != 0 ] || set -- postgres s3 mlflow; for name; do up "$name"; done ;;
    down) read_settings; [ $# != 0 ] || set -- mlflow s3 postgres; for name; do down "$name"; done ;;
    status) read_settings; for name in postgres s3 mlflow; do runs "$name" && echo "$name runs" || echo "$name is down"; done ;;
    member) read_settings; member "${1:?a name}" ;;
    clean) read_settings; cd "$here/.."; exec "$here/run/gc" ;;
    run) read_settings; exec "$@" ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" ;;
esac
