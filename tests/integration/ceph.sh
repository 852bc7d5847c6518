#!/usr/bin/env bash
# A whole S3 server on this machine, in memory and on loopback alone: one monitor, one store, one gateway of Ceph.
#   ceph.sh up FOLDER MON_PORT S3_PORT ACCESS_KEY SECRET_KEY    starts it; takes about 15 s
#   ceph.sh down FOLDER                                         ends what `up` started
# Debian: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common
set -euo pipefail
action=$1 folder=$2

if [ "$action" = down ]; then
    for part in rgw osd mon; do
        if [ -f "$folder/$part.pid" ]; then kill "$(cat "$folder/$part.pid")" 2>/dev/null || true; fi
    done
    exit 0
fi

monitor=$3 gateway=$4 access_key=$5 secret_key=$6
mkdir -p "$folder"/{mon,osd,rgw,run}
cluster=$(cat /proc/sys/kernel/random/uuid)
conf=$folder/ceph.conf keys=$folder/keyring
cat >"$conf" <<CONF
[global]
fsid = $cluster
mon_host = v2:127.0.0.1:$monitor
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
keyring = $keys
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
osd_objectstore = memstore
memstore_device_bytes = 2147483648
run_dir = $folder/run
crash_dir = $folder/run
log_file = $folder/run/\$name.log
pid_file = $folder/run/\$name.pid
admin_socket = $folder/run/\$name.asok
[mon.a]
mon_data = $folder/mon/a
public_addr = v2:127.0.0.1:$monitor
[osd.0]
osd_data = $folder/osd/0
[client.rgw]
rgw_data = $folder/rgw
rgw_frontends = beast endpoint=127.0.0.1:$gateway
CONF
mkdir -p "$folder/mon/a" "$folder/osd/0"
{
    monmaptool --create --fsid "$cluster" --addv a "[v2:127.0.0.1:$monitor]" "$folder/monmap"
    ceph-authtool --create-keyring "$keys" --gen-key -n mon. --cap mon 'allow *'
    for name in client.admin client.rgw osd.0; do
        ceph-authtool "$keys" --gen-key -n $name --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
    done
    ceph-mon -c "$conf" --mkfs -i a --monmap "$folder/monmap" --keyring "$keys"
} >"$folder/up.out" 2>&1
ceph-mon -c "$conf" -i a -f >"$folder/mon.out" 2>&1 &
echo $! >"$folder/mon.pid"
store=$(cat /proc/sys/kernel/random/uuid)
ceph -c "$conf" --connect-timeout 30 osd new "$store" >>"$folder/up.out" 2>&1
ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$store" >>"$folder/up.out" 2>&1
ceph-osd -c "$conf" -i 0 -f >"$folder/osd.out" 2>&1 &
echo $! >"$folder/osd.pid"
radosgw -c "$conf" -n client.rgw -f >"$folder/rgw.out" 2>&1 &
echo $! >"$folder/rgw.pid"
for _ in $(seq 300); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$gateway") 2>/dev/null; then
        radosgw-admin -c "$conf" -n client.rgw user create --uid=tester --display-name=tester \
            --access-key="$access_key" --secret-key="$secret_key" >>"$folder/up.out" 2>&1
        exit 0
    fi
    sleep 0.2
done
echo "the gateway did not start: see $folder/rgw.out" >&2
exit 1
