# The units and files of a system, from its options.
{ config, bb, debian, run }:
let
  ssh = config.services.openssh;
  app = config.services.app;
  sshdConfig = ''
    ${builtins.concatStringsSep "\n" (map (p: "Port ${toString p}") ssh.ports)}
    HostKey /etc/ssh/ssh_host_ed25519_key
    PermitRootLogin prohibit-password
    PasswordAuthentication no
    KbdInteractiveAuthentication no
    UsePAM yes
    UseDNS no
    SetEnv PATH=/run/wrappers/bin:/run/current-system/sw/bin:/run/current-system/sw/sbin
    AuthorizedKeysFile /etc/ssh/authorized_keys.d/%u .ssh/authorized_keys
    # A lab host runs dozens of short sessions in a burst.
    MaxStartups 100:30:300
    Subsystem sftp internal-sftp
    ${ssh.extraConfig}
  '';
  appPkg = run "lab-app-${app.version}" { inherit (app) version; pad = toString app.pad; } ''
    mkdir -p $out
    cp ${./scripts/app.py} $out/app.py
    if [ $pad -gt 0 ]; then dd if=/dev/urandom of=$out/pad bs=1M count=$pad 2>/dev/null; fi
  '';
  optional = cond: set: if cond then set else { };
  snapshots = config.pantherOS.serverImpermanence.enable;
  words = builtins.concatStringsSep " ";
  lines = list: builtins.concatStringsSep "" (map (l: l + "\n") list);
  keys = user: lines config.users.users.${user}.openssh.authorizedKeys.keys;
  sudoRule = r: builtins.concatMap (u: map (c: "${u} ALL=(root) ${words (map (o: o + ":") c.options)} ${c.command}") r.commands) r.users;
in
{
  environment.etc = {
    "os-release".text = ''
      NAME=NixOS
      ID=nixos
      ID_LIKE=lab
      VERSION_ID="${config.system.stateVersion}"
      PRETTY_NAME="NixOS-shaped lab system ${config.system.nixos.version}"
      BUILD_ID="${config.system.nixos.version}"
    '';
    "NIXOS".text = "";
    "hosts".text = "127.0.0.1 localhost ${config.networking.hostName}\n::1 localhost\n${config.networking.extraHosts}";
    "fstab".text = builtins.concatStringsSep "" (builtins.attrValues (builtins.mapAttrs
      (mnt: f: "${f.device or "LABEL=nixos"} ${mnt} ${f.fsType} ${builtins.concatStringsSep "," (f.options ++ [ "noauto" ])} 0 0\n")
      config.fileSystems));
    "ssh/sshd_config".text = sshdConfig;
    "nix/nix.conf".text = ''
      experimental-features = nix-command flakes
      substituters =
      sandbox = false
      trusted-users = ${words config.nix.settings.trusted-users}
      trusted-public-keys = ${words config.nix.settings.trusted-public-keys}
    '';
    # Debian keeps the daemon to a group, NixOS does not.
    "tmpfiles.d/nix-daemon.conf".text = "d /nix/var/nix/daemon-socket 0755 root root - -\n";
    "tmpfiles.d/00-nixos.conf".text = lines config.systemd.tmpfiles.rules;
    "sudoers".text = "root ALL=(ALL:ALL) NOPASSWD: ALL\n" + lines (builtins.concatMap sudoRule config.security.sudo.extraRules);
  }
  // optional (config.networking.hostName != "") { "hostname".text = "${config.networking.hostName}\n"; }
  // builtins.listToAttrs (map (u: { name = "ssh/authorized_keys.d/${u}"; value.text = keys u; }) (builtins.attrNames config.users.users));

  systemd.services = {
    nix-daemon = {
      description = "Nix Daemon";
      serviceConfig = { ExecStart = "/usr/bin/nix-daemon --daemon"; KillMode = "process"; };
      wantedBy = [ "multi-user.target" ];
      restartIfChanged = false;
    };
  }
  // optional ssh.enable {
    sshd = {
      description = "SSH Daemon";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      stopIfChanged = false;
      serviceConfig = {
        ExecStart = "/usr/sbin/sshd -D -f /etc/ssh/sshd_config";
        # The unit changes with its configuration, as on NixOS.
        Environment = "SSHD_CONFIG=${builtins.hashString "sha256" sshdConfig}";
        ExecReload = "/bin/kill -HUP $MAINPID";
        KillMode = "process";
        Restart = "always";
        RuntimeDirectory = "sshd";
        RuntimeDirectoryPreserve = "yes";
      };
    };
  }
  // optional app.enable {
    app = {
      description = "Lab application ${app.version}";
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        Type = "notify";
        TimeoutStartSec = app.startTimeout;
        ExecStart = "/usr/bin/python3 -ISE ${appPkg}/app.py";
        Environment = "'APP=${builtins.toJSON app}'";
      };
    };
  }
  // optional config.services.caddy.enable {
    caddy = {
      description = "Caddy (a stand-in that only runs)";
      wantedBy = [ "multi-user.target" ];
      script = "exec ${bb} sleep 2147483647";
    };
  }
  // optional config.networking.firewall.dropAll {
    nftables = {
      description = "Firewall that lets nothing in, established connections included";
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "/usr/sbin/nft -f ${./scripts/drop-all.nft}";
        ExecStop = "/usr/sbin/nft delete table inet lab";
      };
    };
  }
  // optional config.lab.network.down {
    network-down = {
      description = "Takes the network interface down";
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "/usr/bin/sh -c 'ip link set host0 down 2>/dev/null || ip link set eth0 down'";
        ExecStop = "/usr/bin/sh -c 'ip link set host0 up 2>/dev/null || ip link set eth0 up'";
      };
    };
  }
  // optional snapshots {
    server-snapshots = {
      description = "Read-only Btrfs snapshots";
      restartIfChanged = false;
      serviceConfig = { Type = "oneshot"; ExecStart = "/usr/bin/bash ${./scripts/server-snapshots.sh}"; };
    };
  };

  systemd.timers = optional snapshots {
    server-snapshots = {
      wantedBy = [ "timers.target" ];
      timerConfig = { OnCalendar = "*-*-* 00/6:00:00"; Persistent = true; };
    };
  };
}
