# pagecast's neighbours in a lab: DNS, I-CSCF and S-CSCF are Debian's dnsmasq and Kamailio, the HSS is the double of
# integration/ims. Each container runs one of them; their configuration is generated when the network starts.
FROM debian:bookworm-slim

# No recommended packages, and nothing that starts by itself.
RUN printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d \
    && apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        dnsmasq-base netbase kamailio kamailio-ims-modules kamailio-presence-modules python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* /usr/sbin/policy-rc.d
COPY integration/ims/hss/requirements.txt /opt/hss/
RUN python3 -m venv /opt/hss && /opt/hss/bin/pip install --quiet --no-cache-dir -r /opt/hss/requirements.txt

COPY ims-profiles /opt/pagecast/ims-profiles
COPY integration/ims /opt/pagecast/integration/ims
COPY integration/docker/healthy /usr/local/bin/healthy
ENV PYTHONDONTWRITEBYTECODE=1
