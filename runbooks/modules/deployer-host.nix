# What deployer needs on a NixOS host. It makes the host's guard outlive a
# reboot, puts the launcher in its place and lets one user run it:
#
#   imports = [ ./deployer-host.nix ]; # with deployer-launcher.sh beside it
#   services.deployer-host = { enable = true; authorizedKeys = [ "ssh-ed25519 …" ]; };
#
# The user is root-equivalent: by the launcher it can do what root can.
{ config, lib, pkgs, ... }:
let
  cfg = config.services.deployer-host;
  dir = "/nix/var/deployer"; # of the agent, always: the launcher has it in it
  rules = [{
    users = [ cfg.user ];
    commands = [{ command = "${dir}/agent"; options = [ "NOPASSWD" ]; }];
  }];
in
{
  options.services.deployer-host = {
    enable = lib.mkEnableOption "what deployer needs on a host that it changes";

    agent = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = pkgs.writeScript "deployer-launcher" (builtins.readFile ./deployer-launcher.sh);
      defaultText = lib.literalExpression "the launcher beside this module";
      description = ''
        The launcher that is kept at ${dir}/agent. null leaves what lies there as it is.
      '';
    };

    user = lib.mkOption {
      type = lib.types.str;
      default = "deploy";
      description = "Who logs in to deploy.";
    };

    authorizedKeys = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "The public SSH keys that may log in as that user.";
    };
  };

  config = lib.mkIf cfg.enable {
    # A subvolume of its own where it can be: no snapshot holds what the agent
    # remembers, and none takes it back.
    systemd.tmpfiles.rules = [ "v ${dir} 0700 root root - -" ];

    systemd.services.deployer-launcher = lib.mkIf (cfg.agent != null) {
      description = "Put deployer's launcher in its place";
      wantedBy = [ "multi-user.target" ];
      after = [ "systemd-tmpfiles-setup.service" "systemd-tmpfiles-resetup.service" ];
      unitConfig.RequiresMountsFor = dir;
      serviceConfig = { Type = "oneshot"; RemainAfterExit = true; };
      # A connection may start it at any moment: it is replaced as a whole.
      script = ''
        umask 077
        [ -d ${dir} ] || mkdir ${dir}
        cd ${dir}
        if [ -L agent ] || [ ! -x agent ] || [ "$(cat agent)" != "$(cat ${cfg.agent})" ]; then
          cat ${cfg.agent} > .agent.new
          chmod 0700 .agent.new
          sync .agent.new
          mv -f .agent.new agent
          sync .
        fi
      '';
    };

    # After a reboot within a run's window the host's guard goes on here. It is
    # there in rescue and emergency mode too; a switch neither restarts it nor
    # stops it, even one to a system that does not have it: that may be the very
    # restore it is at. A switch may start it again: it finds the guard at work.
    systemd.services.deployer-resume = {
      description = "Go on with a guard of deployer's that a reboot ended";
      wantedBy = [ "multi-user.target" ];
      after = [ "local-fs.target" ];
      conflicts = [ "shutdown.target" ];
      before = [ "shutdown.target" ];
      restartIfChanged = false;
      stopIfChanged = false;
      unitConfig = {
        DefaultDependencies = false;
        IgnoreOnIsolate = true;
        X-StopOnRemoval = false;
        RequiresMountsFor = dir;
        ConditionFileIsExecutable = "${dir}/agent";
        ConditionDirectoryNotEmpty = "${dir}/runs";
        StartLimitIntervalSec = 0;
      };
      serviceConfig = {
        Type = "exec";
        ExecStart = "${dir}/agent resume";
        Restart = "on-failure";
        RestartSec = "500ms";
        RestartPreventExitStatus = "64 67"; # the launcher's refusals: they stay
        OOMScoreAdjust = -900;
      };
    };

    users.users.${cfg.user} = {
      openssh.authorizedKeys.keys = cfg.authorizedKeys;
    } // lib.optionalAttrs (cfg.user != "root") { isNormalUser = true; };

    security.sudo.extraRules = rules;
    security.sudo-rs.extraRules = rules; # the one that is enabled counts
  };
}
