"""Each definition differs in the field that it is named after, if the state says `new`."""

import datetime as dt
import json
import pathlib

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
IN_PROCESS, MULTI = dg.in_process_executor, dg.multiprocess_executor


class Store(dg.ConfigurableResource):
    dsn: str
    size: int = 1


class Files(dg.ConfigurableIOManager):
    path: str = ""

    def handle_output(self, context, obj): ...

    def load_input(self, context): ...


class Parts(dg.ConfigurableResource):
    store: Store


class Custom(dg.AutomationCondition):
    def __init__(self, number):
        self.number = number

    @property
    def name(self):
        return "custom"

    def evaluate(self, context): ...


class Holder(dg.ConfigurableResource):
    held: dg.ResourceDependency[object]


class Plain:
    def __init__(self, path=""):
        self.path = path


class Other: ...


@dg.op
def one(): ...


@dg.op
def two(start): ...


@dg.failure_hook(name="tell")
def tell(context): ...


HOOKS = {dg.success_hook(name=name)(lambda context: None) for name in "abcdefgh"}
hardcoded = dg.ResourceDefinition.hardcoded_resource


@dg.op(config_schema={"x": str})
def configurable(context): ...


def asset(name, **options):
    return dg.asset(**options)(named(name))


def named(name):
    def function(): ...

    function.__name__ = name
    return function


def assets(new):
    """By the field that differs."""
    made = [
        asset("description", description="new" if new else "old"),
        asset("metadata", metadata={"rows": 2 if new else 1, "object": object()}),
        asset(
            "metadata_of_columns",
            metadata={
                "dagster/column_schema": dg.TableSchema(
                    columns=[dg.TableColumn("a", "int" if new else "string")]
                )
            },
        ),
        asset(
            "freshness",
            freshness_policy=dg.FreshnessPolicy.time_window(fail_window=DAY if new else HOUR),
        ),
        asset(
            "backfill",
            partitions_def=dg.DailyPartitionsDefinition("2026-01-01"),
            backfill_policy=dg.BackfillPolicy.multi_run(2 if new else 3),
        ),
        asset(
            "partitions_dynamic",
            partitions_def=dg.DynamicPartitionsDefinition(name="new" if new else "old"),
        ),
        asset(
            "partitions_of_a_day",
            partitions_def=dg.DailyPartitionsDefinition(
                dt.datetime(2026, 1, 1), fmt="%Y%m%d" if new else "%Y-%m-%d"
            ),
        ),
        asset(
            "partitions_many",
            partitions_def=dg.StaticPartitionsDefinition(
                [*map(str, range(500)), "new" if new else "old"]
            ),
        ),
        asset(
            "partitions_multi",
            partitions_def=dg.MultiPartitionsDefinition(
                {
                    "a": dg.StaticPartitionsDefinition(["x"]),
                    "b": dg.HourlyPartitionsDefinition("2026-01-01-00:00", end_offset=int(new)),
                }
            ),
        ),
        asset("io_manager", io_manager_key="files" if new else "other_files"),
        asset("op", op_tags={})
        if not new
        else dg.AssetsDefinition.from_op(
            dg.op(name="renamed")(named("op")), keys_by_output_name={"result": dg.AssetKey("op")}
        ),
        asset("op_tags", op_tags={"memory": "2" if new else "1"}),
        asset("pools", pool="new" if new else "old"),
        asset("retries", retry_policy=dg.RetryPolicy(max_retries=2 if new else 1)),
        asset("value", dagster_type=dg.Int if new else dg.String),
        asset("configuration", config_schema={"x": int if new else str}),
        asset("automation_custom", automation_condition=Custom(2 if new else 1)),
        asset("hooks", hooks={tell} if new else set()),
        asset("resources", required_resource_keys={"store"} if new else set()),
        asset(
            "automation",
            automation_condition=dg.AutomationCondition.eager()
            if new
            else dg.AutomationCondition.eager().without(
                dg.AutomationCondition.in_latest_time_window()
            ),
        ),
        asset(
            "automation_of_some",
            automation_condition=dg.AutomationCondition.eager().allow(
                dg.AssetSelection.assets(*"abcd", "new" if new else "old")
            ),
        ),
        asset("dependencies_external", deps=["outside_new" if new else "outside"]),
        asset(
            "partition_mappings",
            partitions_def=dg.DailyPartitionsDefinition("2026-01-01"),
            deps=[
                dg.AssetDep(
                    "partitions_of_a_day",
                    partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-2 if new else -1),
                )
            ],
        ),
    ]
    made.extend(
        [
            dg.asset(
                name="inputs",
                ins={
                    "x": dg.AssetIn("pools" if new else "retries"),
                    "y": dg.AssetIn("retries" if new else "pools"),
                },
            )(lambda x, y: None),
            dg.asset(
                name="inputs_of_columns",
                ins={"hooks": dg.AssetIn(metadata={"columns": ["new" if new else "old"]})},
            )(lambda hooks: None),
            asset("metadata_path", metadata={"path": pathlib.Path("new" if new else "old")}),
            asset("metadata_number", metadata={"rows": 5 if new else "5"}),
            asset(
                "configuration_choices",
                config_schema={
                    "x": dg.Enum(
                        "Choice", [dg.EnumValue("a"), dg.EnumValue("new" if new else "old")]
                    )
                },
            ),
            dg.asset_check(asset="hooks", description="new" if new else "old")(
                named("description_of_a_check_among_assets")
            ),
            dg.multi_asset_check(
                specs=[
                    dg.AssetCheckSpec(
                        "partition_mappings_of_a_check",
                        asset="backfill",
                        additional_deps=[
                            dg.AssetDep(
                                "partitions_of_a_day",
                                partition_mapping=dg.TimeWindowPartitionMapping(
                                    start_offset=-2 if new else -1
                                ),
                            )
                        ],
                    )
                ]
            )(named("checks_of_a_day")),
            asset(
                "configuration_of_own", resource_defs={"own": hardcoded("new" if new else "old")}
            ),
            dg.graph_asset(
                name="configuration_of_a_graph",
                config={"configurable": {"config": {"x": "new" if new else "old"}}},
            )(lambda: configurable()),
            *swapped(new),
        ]
    )
    specs = [dg.AssetSpec("made_with"), dg.AssetSpec("made_with_others")]
    optional = [dg.AssetSpec("optional", skippable=new)]
    made.append(dg.multi_asset(specs=optional)(named("one_of_many")))
    made.append(dg.multi_asset(specs=specs, can_subset=not new)(named("several")))
    # Two keys with the same parts and slashes.
    made.append(dg.AssetSpec(dg.AssetKey(["a/b"] if new else ["a", "b"])))
    made.append(dg.AssetSpec("type_") if new else asset("type_"))
    return made


def swapped(new):
    @dg.graph_multi_asset(outs={"wiring_of_one": dg.AssetOut(), "wiring_of_another": dg.AssetOut()})
    def both():
        first, second = one.alias("first")(), one.alias("second")()
        made = (second, first) if new else (first, second)
        return dict(zip(("wiring_of_one", "wiring_of_another"), made, strict=True))

    return [both]


def calling(op, **options):
    def compose():
        op()

    return dg.job(**options)(compose)


def tagged(new):
    return dg.op(name="tagged", tags={"memory": "2" if new else "1"})(named("tagged"))


def checks(new):
    return [
        dg.asset_check(asset="description", name="metadata", metadata={"most": 2 if new else 1})(
            named("check")
        ),
        dg.asset_check(asset="description", name="op_tags", op_tags={"k": "new" if new else "old"})(
            named("check")
        ),
        dg.asset_check(
            asset="description", name="dependencies", additional_deps=["pools"] if new else []
        )(named("check")),
        dg.asset_check(
            asset="description",
            name="automation",
            automation_condition=dg.AutomationCondition.eager() if new else None,
        )(named("check")),
    ]


def jobs(new):
    some = dg.AssetSelection.assets("pools", "retries")

    def job(name, **options):
        return dg.define_asset_job(f"{name}_of_a_job", selection=some, **options)

    @dg.job(name="wiring")
    def wiring():
        if new:
            two(one())
        else:
            two.alias("two")(one.alias("one")())
            one.alias("another").with_hooks(HOOKS)()

    @dg.graph
    def inner():
        tagged(new)()

    @dg.job(name="op_definitions")
    def op_definitions():
        inner()

    def of_inputs(x): ...

    an_input = dg.op(name="an_input", ins={"x": dg.In(default_value=2 if new else 1)})(of_inputs)
    an_output = dg.op(name="an_output", out=dg.Out(is_required=new))(named("an_output"))
    with_input = dg.op(name="with_input")(of_inputs)
    owned = {"own": hardcoded("new" if new else "old")}
    mapping = dg.ConfigMapping(
        config_fn=lambda given: {"ops": {"configurable": {"config": given}}},
        config_schema={"x": str, "new" if new else "old": str},
    )

    return [
        calling(an_input, name="op_definitions_of_inputs"),
        calling(an_output, name="op_definitions_of_outputs"),
        calling(one, name="configuration_of_own_of_a_job", resource_defs=owned),
        calling(configurable, name="configuration_of_a_mapping", config=mapping),
        dg.GraphDefinition(
            "configuration_of_inputs",
            node_defs=[with_input],
            input_mappings=[
                dg.InputMapping(
                    graph_input_name="x", mapped_node_name="with_input", mapped_node_input_name="x"
                )
            ],
        ).to_job(input_values={"x": 2 if new else 1}),
        op_definitions,
        *([] if new else [dg.GraphDefinition("__nightly", node_defs=[one]).to_job()]),
        job(
            "configuration_of_the_executor",
            executor_def=MULTI.configured({"max_concurrent": 1 + new}),
        ),
        job("description", description="new" if new else "old"),
        job("metadata", metadata={"rows": 2 if new else 1}),
        job("owners", owners=["team:new" if new else "team:old"]),
        job("run_tags", run_tags={"k": "new" if new else "old"}),
        job("executor", executor_def=IN_PROCESS if new else MULTI),
        job("hooks", hooks={tell} if new else set()),
        job("retries", op_retry_policy=dg.RetryPolicy(max_retries=2 if new else 1)),
        job(
            "configuration",
            config={"loggers": {"console": {"config": {"log_level": "INFO" if new else "DEBUG"}}}},
        ),
        dg.define_asset_job(
            "asset_checks",
            selection=dg.AssetSelection.assets("description")
            - (
                dg.AssetSelection.checks_for_assets("description")
                if new
                else dg.AssetSelection.checks(
                    dg.AssetCheckKey(dg.AssetKey("description"), "metadata")
                )
            ),
        ),
        dg.define_asset_job(
            "assets",
            selection=dg.AssetSelection.groups("default")
            & dg.AssetSelection.assets("pools" if new else "retries"),
        ),
        wiring,
    ]


def schedules(new):
    def schedule(name, **options):
        options = {
            "cron_schedule": "0 1 * * *",
            "target": dg.AssetSelection.assets("pools"),
            **options,
        }
        return dg.ScheduleDefinition(name=f"{name}_of_a_schedule", **options)

    return [
        schedule("cron", cron_schedule=["0 1 * * *", "0 3 * * *" if new else "0 2 * * *"]),
        schedule("timezone", execution_timezone="Europe/Berlin" if new else "UTC"),
        schedule("description", description="new" if new else "old"),
        schedule("metadata", metadata={"rows": 2 if new else 1}),
        schedule("owners", owners=["team:new" if new else "team:old"]),
        schedule("tags", tags={"k": "new" if new else "old"}),
        schedule("assets", target=dg.AssetSelection.assets("retries" if new else "pools")),
        schedule("configuration", run_config={"ops": {"x": "new" if new else "old"}}),
        schedule(
            "status",
            default_status=dg.DefaultScheduleStatus.RUNNING
            if new
            else dg.DefaultScheduleStatus.STOPPED,
        ),
    ]


def sensors(new):
    watching = dg.AssetKey("retries" if new else "pools")

    def sensor(name, **options):
        return dg.SensorDefinition(name=f"{name}_of_a_sensor", evaluation_fn=named(name), **options)

    def automatic(name, **options):
        options = {"target": dg.AssetSelection.assets(name), **options}
        return dg.AutomationConditionSensorDefinition(name=f"{name}_of_automation", **options)

    def of_runs(name, **options):
        options = {"run_status": dg.DagsterRunStatus.SUCCESS, **options}
        return dg.RunStatusSensorDefinition(name, run_status_sensor_fn=named(name), **options)

    some = dg.AssetSelection.assets("retries" if new else "pools")
    return [
        dg.multi_asset_sensor(
            monitored_assets=some, job_name="assets", name="watched_assets_of_a_selection"
        )(lambda context: None),
        of_runs(
            "watched_runs",
            run_status=dg.DagsterRunStatus.FAILURE if new else dg.DagsterRunStatus.SUCCESS,
        ),
        of_runs("all_code_locations", monitor_all_code_locations=new),
        of_runs(
            "watched_jobs",
            monitored_jobs=[
                dg.JobSelector(location_name="other", job_name="new" if new else "old")
            ],
        ),
        sensor("description", description="new" if new else "old", job_name="assets"),
        sensor("jobs", job_name="assets" if new else "wiring"),
        sensor("interval", job_name="assets", minimum_interval_seconds=60 if new else 30),
        sensor("resources", job_name="assets", required_resource_keys={"store"} if new else set()),
        sensor("assets", target=dg.AssetSelection.assets("retries" if new else "pools")),
        dg.AssetSensorDefinition(
            name="watched_assets",
            asset_key=watching,
            job_name="assets",
            asset_materialization_fn=named("f"),
        ),
        automatic(
            "assets_of_a_selection",
            target=dg.AssetSelection.assets("pools", "retries")
            - dg.AssetSelection.assets("retries" if new else "pools"),
        ),
        automatic(
            "run_tags",
            target=dg.AssetSelection.assets("op_tags"),
            run_tags={"k": "new" if new else "old"},
        ),
        automatic(
            "backfills",
            target=dg.AssetSelection.assets("backfill"),
            use_user_code_server=True,
            emit_backfills=new,
        ),
        automatic("metadata", metadata={"rows": 2 if new else 1}),
        sensor("owners", job_name="assets", owners=["team:new" if new else "team:old"]),
        automatic(
            "tags", target=dg.AssetSelection.assets("hooks"), tags={"k": "new" if new else "old"}
        ),
        automatic(
            "status",
            target=dg.AssetSelection.assets("optional"),
            default_status=dg.DefaultSensorStatus.RUNNING
            if new
            else dg.DefaultSensorStatus.STOPPED,
        ),
    ]


def resources(new):
    return {
        "configuration": Store(dsn="new-secret-value" if new else "old-secret-value"),
        "variables": Store(dsn=dg.EnvVar("NEW" if new else "OLD")),
        "configuration_of_a_part": Parts(
            store=Store(dsn="secret-value-2" if new else "secret-value")
        ),
        "configuration_of_an_object": Plain("new" if new else "old"),
        "configuration_of_a_held_object": Holder(held=Plain("new" if new else "old")),
        "configuration_of_text": "new" if new else "old",
        "configuration_set": dg.fs_io_manager.configured({"base_dir": "new" if new else "old"}),
        "type": Store(dsn="x") if new else Files(),
        "type_of_an_object": Plain() if new else Other(),
        "files": Files(path="x"),
        "other_files": Files(path="x"),
        "store": Store(dsn="x"),
    }


class Feed(dg.StateBackedComponent, dg.Component, dg.Model, dg.Resolvable):
    name: str

    @property
    def defs_state_config(self):
        local = DefsStateConfigArgs.local_filesystem()
        return DefsStateConfig.from_args(local, default_key=f"Feed[{self.name}]")

    def write_state_to_path(self, state_path): ...

    def build_defs_from_state(self, context, state_path):
        new = json.loads(state_path.read_text())["new"]
        accepted = {"x": int if new else str, "path": dg.Field(str, default_value=str(state_path))}
        with_path = dg.ResourceDefinition(lambda _: None, config_schema=accepted)
        return dg.Definitions(
            assets=assets(new),
            asset_checks=checks(new),
            jobs=jobs(new),
            schedules=schedules(new),
            sensors=sensors(new),
            resources={**resources(new), "configuration_with_path": with_path},
            loggers={
                "console": dg.colored_console_logger.configured(
                    {"log_level": "INFO" if new else "DEBUG"}
                )
            },
            metadata={"rows": 2 if new else 1},
        )
