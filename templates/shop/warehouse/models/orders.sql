select
    order_id,
    product_id,
    cast(ordered_on as date) as ordered_on,
    cast(quantity as integer) as quantity
from {{ ref('raw_orders') }}
